"""The jobs of a study, as the rules make them: which rule, for what, and by which file it is known. Torch-free."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collateral.study import paths
from collateral.study.design import Cell, Study, list_reference_blocks
from collateral.study.staging import find_hub_text, list_training_datasets
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
        seed: of the edit order.
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


def list_jobs(study: Study, folders: dict[str, list[Path]], mirror: Path | None) -> list[Job]:
    """Return all jobs of a study, finished or not; rule `all`, which does nothing, is left out.

    Args:
        study: checked.
        folders: suite → folders with task files.
        mirror: of the downloads, if there is one; it decides which form of a benchmark is used.
    """
    jobs = [*_sources(study, folders, mirror), *_prepared(study), *_unedited(study)]
    for cell in study.cells:
        jobs += _edited(study, cell)
    jobs += [Job("gather", paths.table("abilities")), Job("infer", paths.table("comparisons"))]
    jobs.append(Job("report", paths.PAGE))
    return list(dict.fromkeys(jobs))


def _sources(study: Study, folders: dict[str, list[Path]], mirror: Path | None) -> Iterator[Job]:
    """Yield the jobs that download and load models, facts and benchmark items."""
    for model in study.names("models"):
        yield Job("download_model", paths.manifest(model), model)
    text = find_hub_text(study)
    if text:
        yield Job("download_text", paths.text(text))
    trained = list_training_datasets(study)
    for dataset in study.names("datasets"):
        settings = study.settings["datasets"][dataset]
        yield from _download(settings.get("source"))
        yield Job("load_facts", paths.facts(dataset), dataset=dataset)
        if dataset in trained:
            yield from _download(settings["training"])
            yield Job("load_training_facts", paths.training_facts(dataset), dataset=dataset)
    for _, dataset, seed, _ in study.cells:
        yield Job("sample_sequence", paths.sequence(dataset, seed), dataset=dataset, seed=seed)
    for benchmark, split, source, _ in _benchmarks(study, folders, mirror):
        for raw in source.files:
            yield Job("download", paths.download(raw.request()))
        yield Job("prepare_benchmark", paths.benchmark(benchmark, split), dataset=benchmark)


def list_mirror_files(study: Study, folders: dict[str, list[Path]], mirror: Path | None) -> list[str]:
    """Return the names of files without an address that the study's tasks read and the mirror lacks."""
    splits = _benchmarks(study, folders, mirror)
    return list(
        dict.fromkeys(raw.name for _, _, source, missing in splits if missing for raw in source.files)
    )


def _benchmarks(
    study: Study, folders: dict[str, list[Path]], mirror: Path | None
) -> Iterator[tuple[str, str, Source, str]]:
    """Yield benchmark, split, source, and why it cannot be downloaded, of all that the study's tasks read."""
    for suite in study.names("suites"):
        settings = study.settings["suites"][suite]
        splits = benchmarks_of(settings["tasks"], folders[suite], settings["num_fewshot"])
        for benchmark, names in splits.items():
            for split in names:
                yield benchmark, split, *foreseen(benchmark, split, mirror)


def _download(source: dict[str, Any] | None) -> Iterator[Job]:
    if source and "path" not in source:
        yield Job("download", paths.download(source))


def _prepared(study: Study) -> Iterator[Job]:
    """Yield what is computed once from the unedited model."""
    for cell in study.cells:
        model, dataset, seed, editor = cell
        yield Job("sample_contexts", paths.contexts(model), model)
        layers = tuple(study.moment_layers(model, editor))
        if layers:
            yield Job("measure_moments", paths.moments(model, layers), model, layers=layers)
        if study.settings["datasets"][dataset]["known_only"]:
            yield Job("probe_known", paths.known(model, dataset), model, dataset)
        learner = study.learner(model, editor)
        if learner:
            path = paths.hypernetwork(model, dataset, seed, learner)
            yield Job("train_hypernetwork", path, model, dataset, seed, learner)


def _unedited(study: Study) -> Iterator[Job]:
    for model in study.names("models"):
        for suite in study.model_suites(model):
            path = paths.unedited(model, paths.abilities(suite))
            yield Job("evaluate_unedited", path, model, suite=suite)
    for cell in study.cells:
        model, dataset, seed, _ = cell
        for start, end in list_reference_blocks(max(study.checkpoints(cell))):
            path = paths.reference(model, dataset, seed, end)
            yield Job("measure_reference", path, model, dataset, seed, start=start, edits=end)


def _edited(study: Study, cell: Cell) -> Iterator[Job]:
    """Yield the jobs of a chain, or of an editor's single edits."""
    points = study.checkpoints(cell)
    for start, end in zip([0, *points], points, strict=False):
        if study.is_single(cell.editor):
            yield Job("edit_singly", paths.single(cell, end, "edits.parquet"), *cell, start, end)
            continue
        for rule, name in _AT_CHECKPOINT.items():
            yield Job(rule, paths.checkpoint(cell, end, name), *cell, start, end)
        for suite in study.suites(cell, end):
            path = paths.checkpoint(cell, end, paths.abilities(suite))
            yield Job("evaluate_abilities", path, *cell, start, end, suite)
    evaluated = [] if study.is_single(cell.editor) else [end for end in points if study.suites(cell, end)]
    for end in study.screened(cell, max(evaluated, default=0)):
        yield Job("screen_collapse", paths.checkpoint(cell, end, "collapse.json"), *cell, edits=end)


_AT_CHECKPOINT = {
    "edit": "delta.parquet",
    "measure_efficacy": "efficacy.parquet",
    "measure_drift": "drift.parquet",
    "weigh": "weights.parquet",
}
_BESIDE = {
    "edit": ("state.safetensors", "edits.parquet", "after-edit.parquet"),
    "edit_singly": ("after-edit.parquet", "single-weights.parquet"),
    "weigh": ("heatmap.parquet",),
}


def list_outputs(job: Job) -> list[str]:
    """Return all files that a job writes into `results/` or `resources/`; one of those of gather and report."""
    folder = job.output.rpartition("/")[0]
    beside = [f"{folder}/{name}" for name in _BESIDE.get(job.rule, ())]
    if job.rule in {"evaluate_unedited", "evaluate_abilities"}:
        beside.append(job.output.removesuffix(".json") + ".items.parquet")
    return [job.output, *beside]
