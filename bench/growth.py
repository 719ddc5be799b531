"""How the cost grows: random models of three sizes, edits in a chain, facts in a batch, checkpoints of a chain.

Weights are not needed for timing, so that the models are random LLaMA shapes with a tokenizer trained on Python's
documentation. Printed: a table with the exponent of each series, the slope of its logarithms; with a path as
argument the points are drawn there as SVG.
"""

import logging
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import polars as pl
import torch
from evaluating import FORMS, requests_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from collateral.data.facts import Fact
from collateral.deltas.file_format import read_chain, write_increment
from collateral.deltas.increment import rebuild
from collateral.deltas.update import restore, snapshot
from collateral.editing.method import Prepared
from collateral.editing.prepare.second_moments import Moment
from collateral.editing.registry import load_method, load_regularizer
from collateral.editing.session import Editor, run_link
from collateral.evaluation.lm.shared_prefix_lm import SharedPrefixLM
from collateral.io.versions import machine
from collateral.models.language_model import LanguageModel, wrap

WIDTHS = (192, 384, 768)  # hidden sizes; the MLP is four times as wide, the layers are eight
EDITS = (10, 100, 1000)
BATCHES = (1, 10, 100)
CHECKPOINTS = (1, 10, 100)
LAYERS, STEPS = 8, 4
TEMPLATES = ("{}", "The sea is blue. {}", "Because of that, {}")
Series = list[tuple[float, float]]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer of 4,096 tokens."""
    from pydoc_data.topics import topics

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(topics.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")


def random_model(width: int, words: PreTrainedTokenizerFast) -> LanguageModel:
    """Return a random LLaMA of some width."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=width // 64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return wrap(LlamaForCausalLM(config), words, f"random-{width}")


def prepared(model: LanguageModel, layers: Sequence[int]) -> Prepared:
    """Return templates, and second moments of random keys."""
    size = model.matrix(model.down_name(0)).shape[1]
    draw = torch.Generator().manual_seed(0)
    found = {}
    for layer in layers:
        keys = torch.randn(2 * size, size, dtype=torch.float64, generator=draw)
        found[layer] = Moment(keys.T @ keys / len(keys), len(keys))
    return Prepared(TEMPLATES, moments={layer: Path("-") for layer in layers}, _loaded=found)


def made_up(count: int) -> list[tuple[int, Fact]]:
    """Return numbered facts of nobody."""
    draw = random.Random(0)
    names = ["".join(draw.choice("aeiourstlm") for _ in range(7)).capitalize() for _ in range(count)]
    return [
        (n, Fact(f"fact-{n}", f"{name} {n}", "home", "{} lives in", draw.choice(names)[:5] + "ia", ""))
        for n, name in enumerate(names, start=1)
    ]


def seconds(work: Callable[[], Any], times: int = 1) -> float:
    """Return the median processor time of some repetitions."""
    found = []
    for _ in range(times):
        begun = time.process_time()
        work()
        found.append(time.process_time() - begun)
    return statistics.median(found)


def linked(model: LanguageModel, method: str, settings: dict[str, Any], count: int, batch: int = 1) -> float:
    """Return the seconds of an uninterrupted sequence of edits; the model is put back."""
    editor = load_method(method, settings)
    ready = prepared(model, settings.get("layers", []))
    original = snapshot(model, editor.parameters(model))
    recipe = Editor(editor, load_regularizer({}), batch, skip_unstable=True)
    facts = made_up(count)
    try:
        return seconds(
            lambda: run_link(
                model, recipe, facts, ready, {}, original=original, seed=0, observe=lambda _: None
            )
        )
    finally:
        restore(model, original)


def by_size(words: PreTrainedTokenizerFast) -> dict[str, Series]:
    """Return seconds of an edit and of an evaluated item against parameters."""
    found: dict[str, Series] = {"ROME, an edit": [], "HellaSwag form, an item": []}
    asked = requests_of(FORMS[0])
    for width in WIDTHS:
        model = random_model(width, words)
        size = float(sum(parameter.numel() for parameter in model.network.parameters()))
        settings = {"layer": 3, "v_num_grad_steps": 20}
        linked(model, "rome", settings, 1)  # what is only done once
        found["ROME, an edit"].append((size, linked(model, "rome", settings, 3) / 3))
        lm = SharedPrefixLM(model, 8)
        spent = seconds(lambda lm=lm: lm.loglikelihood(asked, disable_tqdm=True), 3)
        found["HellaSwag form, an item"].append((size, spent / FORMS[0].items))
    return found


def by_edits(model: LanguageModel) -> dict[str, Series]:
    """Return seconds of a chain against its edits."""
    mass = {"layers": [2, 3], "v_num_grad_steps": STEPS}
    methods = {
        "ROME, a chain": ("rome", {"layer": 3, "v_num_grad_steps": STEPS}),
        "MEMIT-seq, a chain": ("memit", {**mass, "sequential": True}),
        "D4S, a chain": ("d4s", mass),
    }
    return {
        name: [(float(count), linked(model, method, settings, count)) for count in EDITS]
        for name, (method, settings) in methods.items()
    }


def by_batch(model: LanguageModel) -> dict[str, Series]:
    """Return seconds of one operation against its facts."""
    settings = {"layers": [2, 3], "v_num_grad_steps": STEPS}
    series = [(float(count), linked(model, "memit", settings, count, count)) for count in BATCHES]
    return {"MEMIT, an operation": series}


def by_checkpoints(model: LanguageModel, folder: Path) -> dict[str, Series]:
    """Return seconds of a rebuilt checkpoint, and bytes of its chain, against its length."""
    name = model.down_name(3)
    base = {name: model.network.get_parameter(name).data.clone()}
    live, paths = base[name].clone(), []
    draw = torch.Generator().manual_seed(0)
    for number in range(max(CHECKPOINTS)):
        before = {name: live.clone()}
        live += 1e-3 * torch.outer(
            torch.randn(live.shape[0], generator=draw), torch.randn(live.shape[1], generator=draw)
        )
        about = {
            "base_sha256": model.base_sha256,
            "mode": "additive",
            "from_edits": number,
            "to_edits": number + 1,
            "editor": {},
        }
        paths.append(folder / f"delta-{number}.parquet")
        write_increment(paths[-1], before, {name: live}, about)
    times, sizes = [], []
    for count in CHECKPOINTS:
        some = paths[:count]
        spent = seconds(lambda some=some: rebuild(base, read_chain(some, model.base_sha256)), 3)
        times.append((float(count), spent))
        sizes.append((float(count), float(sum(path.stat().st_size for path in some))))
    return {"sparse deltas, rebuilding": times, "sparse deltas, bytes": sizes}


def exponent(series: Series) -> float:
    """Return the slope of the logarithms, by least squares."""
    points = np.log(np.array(series))
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0])


def drawn(found: dict[str, dict[str, Series]], path: Path) -> None:
    """Draw each group of series in logarithms of both sides, bytes left out."""
    rows = [
        {"against": against, "series": f"{name} (exponent {exponent(series):.2f})", "x": x, "s": y}
        for against, group in found.items()
        for name, series in group.items()
        if "bytes" not in name
        for x, y in series
    ]
    panels = []
    for against in found:
        own = pl.DataFrame([row for row in rows if row["against"] == against])
        log = alt.Scale(type="log")
        chart = alt.Chart(own, width=300, height=180).mark_line(point=True)
        panels.append(
            chart.encode(
                alt.X("x:Q", title=against, scale=log, axis=alt.Axis(format="~s", labelOverlap=True)),
                alt.Y("s:Q", title="seconds of processor time", scale=log),
                alt.Color(
                    "series:N", title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=300)
                ),
            )
        )
    whole = alt.concat(*panels, columns=2).resolve_scale(color="independent")
    whole.configure(background="white").save(path)


def main() -> None:
    """Print the table; draw the points where a path is given."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    words = tokenizer()
    small = random_model(WIDTHS[0], words)
    with tempfile.TemporaryDirectory() as folder:
        measures: list[tuple[str, Callable[[], dict[str, Series]]]] = [
            ("parameters of the model", lambda: by_size(words)),
            ("edits of a chain", lambda: by_edits(small)),
            ("facts of a batch", lambda: by_batch(small)),
            ("checkpoints of a chain", lambda: by_checkpoints(small, Path(folder))),
        ]
        found = {against: work() for against, work in tqdm(measures, disable=None)}
    where = f"{machine()['processor']}, 1 thread, processor time"
    sys.stdout.write(f"{where}, float32, {LAYERS} layers, random weights\n\n")
    sys.stdout.write("| what | against | measured | exponent |\n|---|---|---|---|\n")
    for against, group in found.items():
        for name, series in group.items():
            unit = "bytes" if "bytes" in name else "s"
            said = ", ".join(f"{x:,.0f}: {y:,.3g} {unit}" for x, y in series)
            sys.stdout.write(f"| {name} | {against} | {said} | {exponent(series):.2f} |\n")
    if len(sys.argv) > 1:
        drawn(found, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
