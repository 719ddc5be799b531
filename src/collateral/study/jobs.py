"""The jobs of a study, as the rules make them: which rule, for what, and by which file it is known. Torch-free."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.study import paths as places
from collateral.study.design import Cell, Study, reference_blocks
from collateral.study.staging import hub_text, training_datasets
from collateral.tasks.benchmarks.catalogue import Source, foreseen
from collateral.tasks.registry import benchmarks_of


@dataclass(frozen=True)
class Job:
    """One job of the workflow.

    Attributes:
        rule: its name.
        output: its first output, by which Snakemake's summary knows it.
        model: that it runs; empty for jobs without a model.
        dataset: of the facts.
        seed: of the order.
        editor: of the chain, or the learner of a training.
        start: edits before it.
        edits: edits after it.
        suite: that it evaluates.
        layers: whose second moments it measures.
    """

    rule: str
    output: str
    model: str = ""
    dataset: str = ""
    seed: int = 0
    editor: str = ""
    start: int = 0
    edits: int = 0
    suite: str = ""
    layers: tuple[int, ...] = ()

    @property
    def cell(self) -> Cell:
        """The chain that the job belongs to."""
        return Cell(self.model, self.dataset, self.seed, self.editor)


def study_jobs(study: Study, folders: dict[str, list[Path]], mirror: Path | None) -> list[Job]:
    """Return all jobs of a study, finished or not; rule `all`, which does nothing, is left out.

    Args:
        study: checked.
        folders: suite → folders with task files.
        mirror: of the downloads, if there is one; it decides which form of a benchmark is used.
    """
    found = [*_sources(study, folders, mirror), *_prepared(study), *_unedited(study)]
    for cell in study.cells:
        found += _singles(study, cell) if study.is_single(cell.editor) else _chain(study, cell)
    found += [Job("gather", places.table("abilities")), Job("infer", places.table("comparisons"))]
    found.append(Job("report", places.PAGE))
    return list(dict.fromkeys(found))


def _sources(study: Study, folders: dict[str, list[Path]], mirror: Path | None) -> Iterator[Job]:
    """Yield the jobs that bring models, facts and benchmark items."""
    for model in study.names("models"):
        yield Job("download_model", places.manifest(model), model)
    text = hub_text(study)
    if text:
        yield Job("download_text", places.text(text))
    trained = training_datasets(study)
    for dataset in study.names("datasets"):
        own = study.settings["datasets"][dataset]
        yield from _download(own.get("source"))
        yield Job("load_facts", places.facts(dataset), dataset=dataset)
        if dataset in trained:
            yield from _download(own["training"])
            yield Job("load_training_facts", places.training_facts(dataset), dataset=dataset)
    for _, dataset, seed, _ in study.cells:
        yield Job("sample_sequence", places.sequence(dataset, seed), dataset=dataset, seed=seed)
    for benchmark, split, source, _ in _read(study, folders, mirror):
        for raw in source.files:
            yield Job("download", places.download(raw.request()))
        yield Job("prepare_benchmark", places.benchmark(benchmark, split), dataset=benchmark)


def only_mirrored(study: Study, folders: dict[str, list[Path]], mirror: Path | None) -> list[str]:
    """Return the names of files without an address that the study's tasks read and the mirror lacks."""
    read = _read(study, folders, mirror)
    return list(dict.fromkeys(raw.name for _, _, source, missing in read if missing for raw in source.files))


def _read(
    study: Study, folders: dict[str, list[Path]], mirror: Path | None
) -> Iterator[tuple[str, str, Source, str]]:
    """Yield benchmark, split, source, and why that cannot be had, of all that the study's tasks read."""
    for suite in study.names("suites"):
        own = study.settings["suites"][suite]
        for benchmark, splits in benchmarks_of(own["tasks"], folders[suite], own["num_fewshot"]).items():
            for split in splits:
                yield benchmark, split, *foreseen(benchmark, split, mirror)


def _download(source: dict[str, Any] | None) -> Iterator[Job]:
    if source and "path" not in source:
        yield Job("download", places.download(source))


def _prepared(study: Study) -> Iterator[Job]:
    """Yield what is computed once from the unedited model."""
    for cell in study.cells:
        model, dataset, seed, editor = cell
        yield Job("sample_contexts", places.contexts(model), model)
        layers = tuple(study.moment_layers(model, editor))
        if layers:
            yield Job("measure_moments", places.moments(model, layers), model, layers=layers)
        if study.settings["datasets"][dataset]["known_only"]:
            yield Job("probe_known", places.known(model, dataset), model, dataset)
        learner = study.learner(model, editor)
        if learner:
            path = places.hypernetwork(model, dataset, seed, learner)
            yield Job("train_hypernetwork", path, model, dataset, seed, learner)


def _unedited(study: Study) -> Iterator[Job]:
    for model in study.names("models"):
        for suite in study.model_suites(model):
            path = places.unedited(model, places.abilities(suite))
            yield Job("evaluate_unedited", path, model, suite=suite)
    for cell in study.cells:
        model, dataset, seed, _ = cell
        for start, end in reference_blocks(max(study.checkpoints(cell))):
            path = places.reference(model, dataset, seed, end)
            yield Job("measure_reference", path, model, dataset, seed, start=start, edits=end)


def _links(checkpoints: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip([0, *checkpoints], checkpoints, strict=False)


def _singles(study: Study, cell: Cell) -> Iterator[Job]:
    for start, end in _links(study.checkpoints(cell)):
        yield Job("edit_singly", places.single(cell, end, "edits.parquet"), *cell, start, end)


def _chain(study: Study, cell: Cell) -> Iterator[Job]:
    for start, end in _links(study.checkpoints(cell)):
        own = functools.partial(places.checkpoint, cell, end)
        yield Job("edit", own("delta.parquet"), *cell, start, end)
        yield Job("measure_efficacy", own("efficacy.parquet"), *cell, start, end)
        yield Job("measure_drift", own("drift.parquet"), *cell, start, end)
        yield Job("weigh", own("weights.parquet"), *cell, start, end)
        for suite in study.suites(cell, end):
            yield Job("evaluate_abilities", own(places.abilities(suite)), *cell, start, end, suite)
    evaluated = [end for end in study.checkpoints(cell) if study.suites(cell, end)]
    for end in study.screened(cell, max(evaluated, default=0)):
        yield Job("screen_collapse", places.checkpoint(cell, end, "collapse.json"), *cell, edits=end)


_BESIDE = {
    "edit": ("state.safetensors", "edits.parquet", "after-edit.parquet"),
    "edit_singly": ("after-edit.parquet", "single-weights.parquet"),
    "weigh": ("heatmap.parquet",),
}


def outputs(job: Job) -> list[str]:
    """Return all files that a job writes into `results/` or `resources/`; of the last two, gather and report, one."""
    folder = job.output.rpartition("/")[0]
    beside = [f"{folder}/{name}" for name in _BESIDE.get(job.rule, ())]
    if job.rule in {"evaluate_unedited", "evaluate_abilities"}:
        beside.append(job.output.removesuffix(".json") + ".items.parquet")
    return [job.output, *beside]


def recorded_job(name: str, siblings: Sequence[str]) -> Job | None:
    """Return the job of a benchmark record; None where the record's place says nothing that this module knows.

    Args:
        name: the record's path below `benchmarks/`, such as `edit/gpt2-xl/zsre/seed-0/rome/edits-0010.tsv`.
        siblings: names of the records beside it, from which the start of a link of a chain is read.
    """
    rule, *place = name.removesuffix(".tsv").split("/")
    if rule in {"edit", "edit_singly", "measure_efficacy", "measure_drift", "weigh"} and len(place) == 5:
        edits = int(place[4].rpartition("-")[2])
        others = [int(one.removesuffix(".tsv").rpartition("-")[2]) for one in siblings]
        start = max((one for one in others if one < edits), default=0)
        return Job(rule, "", place[0], place[1], _seed(place[2]), place[3], start, edits)
    if rule == "evaluate_abilities" and len(place) == 6:
        edits = int(place[4].rpartition("-")[2])
        return Job(rule, "", place[0], place[1], _seed(place[2]), place[3], 0, edits, place[5])
    if rule == "evaluate_unedited" and len(place) == 2:
        return Job(rule, "", place[0], suite=place[1])
    if rule == "measure_moments" and len(place) == 2:
        return Job(rule, "", place[0], layers=places.layers_of(place[1]))
    if rule == "measure_reference" and len(place) == 4:
        edits = int(place[3].rpartition("-")[2])
        return Job(rule, "", place[0], place[1], _seed(place[2]), "", reference_blocks(edits)[-1][0], edits)
    if rule == "train_hypernetwork" and len(place) == 4:
        return Job(rule, "", place[0], place[1], _seed(place[2]), place[3])
    return None


def _seed(text: str) -> int:
    return int(text.removeprefix("seed-"))
