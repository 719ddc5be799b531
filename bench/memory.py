"""The peak memory of an edit job against its bound: the model's bytes and the edited matrices in float64.

Each job is the second link of a chain on the embedded model, in a process of its own, through `chain.edit_link` as
the workflow's job does it. Counted is resident memory above that of the process after its imports, of every phase
by itself: Linux forgets a peak when asked to. The weights stay mapped from their file and count as far as they were
read. Optimisation and probes have activations, second moments and state, which no bound of weights knows: they have
columns of their own. The link's files must be those of a link made without the measurement.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from behaviour import ROOT, embedded_folder, layers_of, prepare, settings_of

from collateral.data.edit_order import chosen_facts, permutation, write_sequence
from collateral.data.facts import read_facts, write_facts
from collateral.data.loaders import embedded
from collateral.editing import session
from collateral.editing.prepare.context_templates import write_templates
from collateral.evaluation.efficacy import measure_facts, write_rows
from collateral.io.atomic import sha256_file
from collateral.io.versions import machine
from collateral.models.language_model import load_model
from collateral.pipeline import edit_chain as chain
from collateral.pipeline.edit_chain import LinkInputs, edit_link
from collateral.study.paths import name_layers

JOBS = {  # each a method, and settings beside those of config.yaml
    "rome": ("rome", {"v_num_grad_steps": 3}),
    "memit": ("memit", {"v_num_grad_steps": 3}),
    "ft": ("ft", {"num_steps": 3}),
    "d4s": ("d4s", {"v_num_grad_steps": 3}),
    "memit-seq": ("memit", {"v_num_grad_steps": 3, "sequential": True}),
    "alphaedit": ("alphaedit", {"v_num_grad_steps": 3}),
}
LINKS = ((0, 2), (2, 4))  # edits before and after
PHASES = ("load", "rebuild", "edit", "probe", "write")
TOKENS = 2048


def resident() -> int:
    """Return the bytes that the process holds in memory now."""
    return _status("VmRSS")


def _status(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) * 1024


def forget() -> None:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def watch(peaks: dict[str, int]) -> None:
    """Put a measurement around the parts of a job; what lies between them counts with what came before."""

    def measured(phase: str, work: Callable[..., Any], *given: Any, **named: Any) -> Any:
        close("edit" if "edit" in peaks else "load" if phase == "load" else "rebuild")
        try:
            return work(*given, **named)
        finally:
            close(phase)

    def close(phase: str) -> None:
        peaks[phase] = max(peaks.get(phase, 0), _status("VmHWM"))
        forget()

    def written(work: Callable[..., None], *given: Any) -> None:
        close("probe")
        work(*given)
        close("write")

    chain.write_rows = partial(written, chain.write_rows)
    chain.load_model = partial(measured, "load", chain.load_model)
    chain.measure_facts = partial(measured, "probe", chain.measure_facts)
    session._compute_operation = partial(measured, "edit", session._compute_operation)
    watch.close = close  # type: ignore[attr-defined]


def editor_of(job: str) -> tuple[str, dict[str, Any]]:
    """Return a job's method and all its settings."""
    method, own = JOBS[job]
    return method, settings_of(method, **own)


def make_link(folder: Path, job: str, number: int, out: Path) -> None:
    """Make a link of a method's chain, the first one's files lying where it left them."""
    start, edits = LINKS[number]
    method, settings = editor_of(job)
    before = folder / job / "0"
    layers = layers_of([(method, settings)])
    edit_link(
        LinkInputs(
            model=embedded_folder(),
            facts=folder / "facts.parquet",
            sequence=folder / "sequence.parquet",
            known=None,
            contexts=folder / "contexts.json",
            moments=folder / f"moments-{name_layers(layers)}.safetensors" if layers else None,
            hypernetwork=None,
            reference=[folder / "reference.parquet"],
            like=(),
            deltas=[before / "delta.parquet"] if number else [],
            state=before / "state.safetensors" if number else None,
        ),
        recipe={
            "method": method,
            "settings": settings,
            "regularizer": {},
            "batch_size": 1,
            "unstable": {"action": "skip", "limit": 10.0},
        },
        start=start,
        edits=edits,
        seed=0,
        new_tokens=4,
        dtype="float32",
        device="cpu",
        delta=out / "delta.parquet",
        state=out / "state.safetensors",
        records=out / "edits.parquet",
        after_edit=out / "after-edit.parquet",
    )


def bound(job: str) -> tuple[int, int]:
    """Return the bytes of the model, and those of the edited matrices in float64."""
    model = load_model(embedded_folder())
    from collateral.editing.registry import load_method

    names = load_method(*editor_of(job)).parameters(model)
    weights = sum(one.numel() * one.element_size() for one in model.network.parameters())
    return weights, sum(8 * model.matrix(name).numel() for name in names)


def one_job(folder: Path, job: str, number: int, measure: bool) -> None:
    """Make one link in this process and write the peaks of its phases, in bytes above the imports."""
    import transformers.models.llama.modeling_llama  # noqa: F401  the import is not the job's

    torch.set_num_threads(1)
    out = folder / job / (str(number) if measure else f"{number}-plain")
    peaks: dict[str, int] = {}
    if measure:
        watch(peaks)
        forget()
    begun = resident()
    make_link(folder, job, number, out)
    if measure:
        watch.close("write")  # type: ignore[attr-defined]
        above = {phase: peaks.get(phase, begun) - begun for phase in PHASES}
        (out / "peaks.json").write_text(json.dumps(above))


def lay_out(folder: Path) -> None:
    """Write what the jobs read: facts, their order, contexts, second moments, the unedited model's probes."""
    facts = embedded.load(ROOT / "resources/embedded")
    write_facts(facts, folder / "facts.parquet")
    write_sequence(permutation(facts, 0, "drop"), folder / "sequence.parquet")
    model = load_model(embedded_folder())
    for job in JOBS:
        layers = layers_of([editor_of(job)])
        templates = prepare(model, folder, layers, [[10, 5]], TOKENS).templates
    write_templates(templates, folder / "contexts.json", model.base_sha256)
    by_id = {fact.fact_id: fact for fact in read_facts(folder / "facts.parquet")}
    chosen = chosen_facts(by_id, folder / "sequence.parquet", None, LINKS[-1][1])
    write_rows(measure_facts(model, chosen, "before", 4), folder / "reference.parquet")


def row(folder: Path, job: str) -> str:
    """Return a method's row of the table.

    Raises:
        SystemExit: the measured link's files are not those of the same link without a measurement.
    """
    for number, measure in ((0, True), (1, False), (1, True)):
        command = [sys.executable, __file__, "--job", job, "--folder", str(folder)]
        command += ["--link", str(number), *(["--measure"] if measure else [])]
        subprocess.run(command, check=True)
    for path in sorted((folder / job / "1-plain").glob("*.*")):
        if sha256_file(path) != sha256_file(folder / job / "1" / path.name):
            sys.exit(f"{job}: {path.name} is another file when it is measured")
    first, peaks = (json.loads((folder / job / f"{n}" / "peaks.json").read_text()) for n in (0, 1))
    weights, edited = bound(job)
    most = max(peaks[phase] for phase in ("load", "rebuild", "write"))
    cells = [f"{peaks[phase] / 2**20:.0f}" for phase in PHASES]
    highest = (most, max(peaks.values()), max(first.values()))
    ratios = [f"{value / (weights + edited):.2f}" for value in highest]
    sizes = [f"{value / 2**20:.0f}" for value in (weights, edited)]
    return f"| {' | '.join([job, *sizes, *cells, *ratios])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--job", choices=JOBS)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--link", type=int)
    parser.add_argument("--measure", action="store_true")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    if chosen.folder is not None:
        one_job(chosen.folder, chosen.job, chosen.link, chosen.measure)
        return
    torch.set_num_threads(1)
    heads = ["editor", "model, MiB", "edited in float64", *PHASES, "weights' phases / bound", "all / bound"]
    heads.append("all of the first link / bound")
    sys.stdout.write(f"{machine()['processor']}, 1 thread, float32, MiB above the imports\n\n")
    sys.stdout.write(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}\n")
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        for job in JOBS if chosen.job is None else (chosen.job,):
            sys.stdout.write(f"{row(Path(folder), job)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
