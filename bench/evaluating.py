"""Time the evaluation against lm-eval's own model class on the embedded model, in the forms of the public benchmarks.

Both get the same requests, batch size and threads, in turns; the table has medians of the ratios, and what differs in
the answers. The texts are of Python's own documentation, in the lengths of the benchmarks.
"""

import argparse
import logging
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from behaviour import embedded_folder, embedded_model
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from collateral.evaluation.lm.shared_prefix_lm import SharedPrefixLM
from collateral.io.versions import machine
from collateral.models.language_model import LanguageModel

ROUNDS, BATCH = 3, 8
TOLERANCE = 1e-4  # nats, of the log-likelihood of an option
CHECKED = 8  # items that are scored in float64, too


@dataclass(frozen=True)
class Form:
    """A kind of item.

    Attributes:
        name: of the benchmark whose form it is.
        context: words of the context, from and to.
        options: how many; 0 for a text that is generated.
        words: of each option, from and to; of generated texts the most tokens.
        items: how many are asked.
        alike: share of an option's words that the first option of the item begins with, too.
        examples: words that all items begin with.
    """

    name: str
    context: tuple[int, int]
    options: int
    words: tuple[int, int]
    items: int
    alike: float = 0.0
    examples: int = 0


# Options of PIQA differ in a few words; a third of an option's tokens comes before them (first 400 validation items).
FORMS = (
    Form("HellaSwag", (20, 80), 4, (10, 30), 16),
    Form("ARC", (12, 30), 4, (1, 8), 32),
    Form("PIQA", (5, 15), 2, (10, 30), 48, alike=0.35),
    Form("MuTual", (40, 110), 4, (6, 18), 16),
    Form("ARC with 5 examples", (12, 30), 4, (1, 8), 8, examples=140),
    Form("GSM8K", (35, 70), 0, (96, 96), 32),
    Form("GSM8K with 5 examples", (35, 70), 0, (96, 96), 16, examples=350),
    Form("SAMSum", (60, 150), 0, (48, 48), 16),
)


def words(count: int, draw: random.Random) -> str:
    """Return so many consecutive words of the documentation."""
    from pydoc_data.topics import topics

    text = " ".join(topics.values()).split()
    start = draw.randrange(len(text) - count)
    return " ".join(text[start : start + count])


def requests_of(form: Form) -> list[Instance]:
    """Return the requests of a form's items."""
    draw = random.Random(form.name)
    made: list[tuple[Any, ...]] = []
    examples = f"{words(form.examples, draw)} " if form.examples else ""
    for _ in range(form.items):
        context = examples + words(draw.randint(*form.context), draw)
        if form.options:
            options = [words(draw.randint(*form.words), draw).split() for _ in range(form.options)]
            for option in options:
                kept = round(form.alike * len(option))
                made.append((context, f" {' '.join([*options[0][:kept], *option[kept:]])}"))
        else:
            until = {"until": ["\n\n", "Question:"], "max_gen_toks": form.words[1], "do_sample": False}
            made.append((context, until))
    kind = "loglikelihood" if form.options else "generate_until"
    return [Instance(request_type=kind, doc={}, arguments=one, idx=i) for i, one in enumerate(made)]


def timed(call: Callable[..., Any], asked: Sequence[Instance]) -> tuple[float, Any]:
    """Return seconds and answers."""
    begun = time.perf_counter()
    answers = call(asked, disable_tqdm=True)
    return time.perf_counter() - begun, answers


def compared(form: Form, model: LanguageModel) -> str:
    """Return one row of the table; the answers must agree.

    Raises:
        SystemExit: another best option, or another text.
    """
    asked = requests_of(form)
    kind = "loglikelihood" if form.options else "generate_until"
    plain = HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=BATCH, dtype=None)
    ours = SharedPrefixLM(model, BATCH)
    ratios, seconds = [], []
    for _ in range(ROUNDS):
        before, theirs = timed(getattr(plain, kind), asked)
        after, mine = timed(getattr(ours, kind), asked)
        ratios.append(before / after)
        seconds.append(after)
    if form.options:
        model.network.double()  # and back: both exact
        checked = asked[: CHECKED * form.options]
        exact, _ = plain.loglikelihood(checked, disable_tqdm=True), model.network.float()
        said = agreement(form, theirs, mine, exact)
    else:
        other = sum(one != two for one, two in zip(theirs, mine, strict=True))
        said = f"{len(mine) - other} of {len(mine)} texts equal"
        if other:
            sys.exit(f"{form.name}: {other} texts differ")
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    per_item = 1000 * statistics.median(seconds) / form.items
    return f"| {form.name} | {statistics.median(ratios):.2f} ({span}) | {per_item:.0f} ms | {said} |"


def agreement(form: Form, theirs: Any, mine: Any, exact: Any) -> str:
    """Return how far log-likelihoods are from those in float64, and that the same option is the best of every item.

    Raises:
        SystemExit: another option is the best, or ours are further than `TOLERANCE`.
    """
    far = [
        max(abs(a[0] - b[0]) for a, b in zip(found[: len(exact)], exact, strict=True))
        for found in (theirs, mine)
    ]
    if not far[1] <= TOLERANCE:
        sys.exit(f"{form.name}: a log-likelihood is {far[1]:.1e} from that in float64")
    for start in range(0, len(mine), form.options):
        best = [
            max(range(form.options), key=lambda option: found[start + option][0]) for found in (theirs, mine)
        ]
        if best[0] != best[1]:
            sys.exit(f"{form.name}: another option is the best of item {start // form.options}")
    said = f"{far[1]:.0e} from float64, HFLM {far[0]:.0e}"
    return f"{said}; same argmax on {form.items} of {form.items}"


# An evaluation job on one item: seconds until imports, model and result are there. The baseline asks lm-eval
# as its own command line does.
JOB = """
import gc, sys, time
begun = time.perf_counter()
if sys.argv[2] == "ours":
    snakemake = None  # as in a job's own script
    import collateral.runtime.job
import torch
torch.set_num_threads(1)
from pathlib import Path
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
import transformers.models.llama.modeling_llama
from collateral.evaluation import harness as abilities
from collateral.evaluation.lm import shared_prefix_lm as scoring
from collateral.models.language_model import load_model
from collateral.tasks.registry import load_tasks
gc.freeze()
gc.enable()
imported = time.perf_counter()
model = load_model(Path(sys.argv[1]))
loaded = time.perf_counter()
if sys.argv[2] == "ours":
    abilities.evaluate(model, {"tasks": ["embedded-sentiment"], "batch_size": 8, "limit": 1}, [])
else:
    evaluator.simple_evaluate(
        model=HFLM(pretrained=model.network, tokenizer=model.tokenizer, batch_size=8, dtype=None),
        tasks=list(load_tasks(["embedded-sentiment"], []).values()),
        limit=1, log_samples=True, bootstrap_iters=100, task_manager=TaskManager(include_defaults=False),
    )
done = time.perf_counter()
print("SECONDS", imported - begun, loaded - imported, done - loaded)
"""


def job_seconds(folder: str, whose: str) -> list[float]:
    """Return the seconds of imports, of loading the model and of everything else of a job in a process of its own."""
    command = [sys.executable, "-c", JOB, folder, whose]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("SECONDS "))
    return [float(part) for part in line.split()[1:]]


def overhead() -> str:
    """Return the table of what an evaluation job takes beside its items."""
    folder = str(embedded_folder())
    seconds: dict[str, list[list[float]]] = {"lm-eval's own way": [], "ours": []}
    for _ in range(ROUNDS):
        for whose, own in seconds.items():
            own.append(job_seconds(folder, whose))
    lines = ["| a job with one item | imports | model | the rest | together |", "|---|---|---|---|---|"]
    for whose, own in seconds.items():
        parts = [statistics.median(column) for column in zip(*own, strict=True)]
        lines.append(f"| {whose} | {' | '.join(f'{part:.2f} s' for part in [*parts, sum(parts)])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="forms, or 'job'; without any: all of them")
    chosen = parser.parse_args().parts
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    about = machine()
    sys.stdout.write(
        f"{about['processor']}, 1 thread, float32, batches of {BATCH}, {ROUNDS} rounds in turns\n\n"
    )
    forms = [form for form in FORMS if form.name in chosen or not chosen]
    if forms:
        model = embedded_model()
        sys.stdout.write("| form | HFLM / ours (range) | ours, an item | answers |\n|---|---|---|---|\n")
        for form in forms:
            sys.stdout.write(f"{compared(form, model)}\n")
            sys.stdout.flush()
    if "job" in chosen or not chosen:
        sys.stdout.write(f"\n{overhead()}")


if __name__ == "__main__":
    main()
