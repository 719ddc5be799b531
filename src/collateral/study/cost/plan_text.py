"""A plan as text: one line a rule, totals, what it rests on and what it cannot know. Torch-free."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from collateral.io.units import checkpoints, hours, size
from collateral.study.cost.estimate import SOURCES, Estimate, compute_need, estimate_jobs, take_largest
from collateral.study.cost.study_sizes import list_assumptions, read_sizes
from collateral.study.cost.work import Need
from collateral.study.design import Study
from collateral.study.job_records import read_records
from collateral.study.jobs import Job, list_jobs, list_mirror_files

GPU_MEMORY = 80e9  # ASSUME: memory of a large GPU as clusters have it; unit: bytes
_UNITS = {"cpu": "CPU core time", "cuda": "GPU time"}
_LEFT_OUT = (
    "Not known before: how many facts a model knows, edits that stop or are skipped, an optimization or a training "
    "that ends early, the network's speed, other programs on the machine."
)


def format_plan(
    estimates: Sequence[Estimate], title: str, needs: Mapping[Job, Need], notes: Sequence[str]
) -> str:
    """Return a plan as tables and sentences.

    Args:
        estimates: one a job, in the order in which the rules are needed.
        title: of the study.
        needs: job → what it asks a cluster for.
        notes: further sentences, such as why it is not known what is still to do.
    """
    rules, models = _grouped(estimates, "rule"), _grouped(estimates, "model")
    models.pop("", None)
    parts = [
        f"Plan of '{title}'",
        _cost_table("stage", {**rules, "total": estimates}),
        _cost_table("model", models) if len(models) > 1 else "",
        _checkpoint_note(estimates),
        _longest_chain(estimates),
        _request_table(rules, needs),
        _excess_note(rules, needs),
        *notes,
        _legend(estimates),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def describe_plan(
    study: Study,
    folders: dict[str, list[Path]],
    mirror: Path | None,
    benchmarks: Sequence[Path],
    speed: Mapping[str, float],
    waiting: frozenset[str] | None,
    reason: str,
) -> str:
    """Return a study's plan as text.

    Args:
        study: checked.
        folders: suite → folders with task files.
        mirror: of the downloads, if there is one.
        benchmarks: folders with Snakemake's benchmark files.
        speed: factor on the default rates, by device kind (cpu, cuda).
        waiting: outputs that Snakemake would still make; None if it could not say.
        reason: why it could not say.
    """
    jobs, sizes = list_jobs(study, folders, mirror), read_sizes(study, folders)
    records = {job: record for folder in benchmarks for job, record in read_records(folder).items()}
    estimates = estimate_jobs(study, jobs, sizes, records, speed, waiting)
    notes = list_assumptions(study, sizes)
    if files := list_mirror_files(study, folders, mirror):
        notes.insert(
            0, f"Only a mirror can supply {', '.join(files)}, and the study has no mirror with these files"
        )
    if reason:
        notes.insert(0, f"What is still to do is not known, so all of it counts as to do: {reason}")
    notes += list_gpu_notes(estimates, {model: study.gpu_count(model) for model in study.names("models")})
    needs = {job: compute_need(job, study, sizes) for job in jobs}
    return format_plan(estimates, study.settings["study"]["title"], needs, notes)


def list_gpu_notes(estimates: Sequence[Estimate], gpus: Mapping[str, int]) -> list[str]:
    """Return a sentence for each model that is spread over GPUs, or that no single GPU holds.

    Args:
        estimates: of the study's jobs.
        gpus: model → GPUs that the config gives it.
    """
    notes = []
    for model, count in gpus.items():
        own = (
            estimate.memory
            for estimate in estimates
            if estimate.job.model == model and estimate.kind == "cuda"
        )
        most = max(own, default=0)
        enough = math.ceil(most / GPU_MEMORY)
        if count > 1:
            notes.append(f"{model} is spread over {count} GPUs: about {size(most / count)} on each.")
        if enough > count:
            notes.append(
                f"{model} takes {size(most)}, more than {count} GPU(s) of {size(GPU_MEMORY)} hold: set "
                f"models.{model}.device to cuda:all and models.{model}.gpus to {enough}."
            )
    return notes


def sum_hours(estimates: Iterable[Estimate]) -> tuple[float, float, float]:
    """Return the hours of some jobs, and the bounds if all estimates are wrong in one direction by their factor."""
    pairs = [(estimate.hours, estimate.source.factor) for estimate in estimates]
    return (
        sum(hour for hour, _ in pairs),
        sum(hour / factor for hour, factor in pairs),
        sum(hour * factor for hour, factor in pairs),
    )


def _grouped(estimates: Sequence[Estimate], key: str) -> dict[str, list[Estimate]]:
    groups: dict[str, list[Estimate]] = {}
    for estimate in estimates:
        groups.setdefault(estimate.job.rule if key == "rule" else estimate.job.model, []).append(estimate)
    return groups


def _waiting(estimates: Iterable[Estimate]) -> list[Estimate]:
    """Return the jobs that are still to do; all of them where that is not known."""
    return [estimate for estimate in estimates if estimate.waiting is not False]


def _cost_table(name: str, groups: Mapping[str, Sequence[Estimate]]) -> str:
    """Return a line for each group of jobs; `name` is the head of the first column."""
    kinds = [
        kind
        for kind in _UNITS
        if any(estimate.kind == kind for group in groups.values() for estimate in group)
    ]
    head = [name, "jobs", "to do"]
    for kind in kinds:
        head += [_UNITS[kind], "to do", "between"]
    rows = [[*head, "memory", *(["GPU memory"] if "cuda" in kinds else []), "disk", "from"]]
    for label, group in groups.items():
        left = _waiting(group)
        known = all(estimate.waiting is not None for estimate in group)
        row = [label, str(len(group)), str(len(left)) if known else "?"]
        for kind in kinds:
            own = [estimate for estimate in group if estimate.kind == kind and estimate.seconds is not None]
            mean, low, high = sum_hours(_waiting(own))
            bounds = f"{hours(low)} to {hours(high)}" if mean else "-"
            row += [hours(sum_hours(own)[0]), hours(mean), bounds]
        row.append(size(max(estimate.host for estimate in group)))
        if "cuda" in kinds:
            row.append(
                size(max((estimate.memory for estimate in group if estimate.kind == "cuda"), default=0))
            )
        sources = Counter(estimate.source.mark for estimate in group if estimate.seconds is not None)
        marks = "".join(mark for mark, _ in sources.most_common()) if label != "total" else ""
        rows.append([*row, size(sum(estimate.disk for estimate in group)), marks])
    lines = _aligned(rows)
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    return lines


def _checkpoint_note(estimates: Sequence[Estimate]) -> str:
    """Return what the chains' checkpoints take, beside what they would take as whole models."""
    links = [estimate for estimate in estimates if estimate.checkpoint]
    kept, whole = sum(estimate.disk for estimate in links), sum(estimate.checkpoint for estimate in links)
    text = (
        f"{checkpoints(len(links))} on disk: {size(kept)} as deltas; full checkpoints would be {size(whole)}."
    )
    return text if links else ""


def _longest_chain(estimates: Sequence[Estimate]) -> str:
    """Return how long the slowest chain of edits takes: no cluster is faster."""
    chains: dict[object, list[Estimate]] = {}
    for estimate in _waiting(estimates):
        if estimate.job.rule == "edit" and estimate.seconds is not None:
            chains.setdefault(estimate.job.cell, []).append(estimate)
    if not chains:
        return ""
    seconds, links = max(
        ((sum(estimate.seconds or 0 for estimate in links), links) for links in chains.values()),
        key=lambda pair: pair[0],
    )
    last = links[-1].job
    return (
        f"No number of machines makes it faster than {hours(seconds / 3600)}: {last.editor} on {last.model} and "
        f"{last.dataset} takes so long for its {last.edits} edits, one after another."
    )


def _request_table(rules: Mapping[str, Sequence[Estimate]], needs: Mapping[Job, Need]) -> str:
    """Return the largest request of each rule that has jobs to do; rules that ask for the same share a line."""
    names: dict[Need, list[str]] = {}
    for rule, group in rules.items():
        asked = [needs[estimate.job] for estimate in _waiting(group) if estimate.job in needs]
        if asked:
            names.setdefault(take_largest(asked), []).append(rule)
    if not names:
        return ""
    rows = [["  memory", "time", "GPUs", "asked by the largest job of"]]
    for need, asking in sorted(names.items(), key=lambda item: (-item[0].gpus, -item[0].memory)):
        row = [f"  {size(1e6 * need.memory)}", hours(need.minutes / 60), str(need.gpus or "-")]
        rows.append([*row, ", ".join(asking)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([*map(str.rjust, row[:3], widths), row[3]]) for row in rows]
    return "\n".join(
        ["Asked of a cluster; a job that fails asks for twice as much, then three times:", *lines]
    )


def _excess_note(rules: Mapping[str, Sequence[Estimate]], needs: Mapping[Job, Need]) -> str:
    """Return the jobs that a cluster would stop: records or speeds put them above what they ask for."""
    lines, options = [], []
    for rule, group in rules.items():
        known = [
            estimate for estimate in _waiting(group) if estimate.job in needs and estimate.seconds is not None
        ]
        memory = [(estimate.host / 1e6, needs[estimate.job].memory) for estimate in known]
        minutes = [
            ((estimate.seconds or 0) * estimate.source.factor / 60, needs[estimate.job].minutes)
            for estimate in known
        ]
        if large := [pair for pair in memory if pair[0] > 1.05 * pair[1]]:
            most, asked = max(large)
            lines.append(f"  {rule}: {size(1e6 * most)} of main memory, not {size(1e6 * asked)}")
            options.append(f"{rule}:mem_mb={math.ceil(1.1 * most / 100) * 100}")
        if long := [pair for pair in minutes if pair[0] > 1.1 * pair[1]]:
            most, asked = max(long)
            lines.append(f"  {rule}: up to {hours(most / 60)}, not {hours(asked / 60)}")
            options.append(f"{rule}:runtime={math.ceil(1.1 * most / 5) * 5}")
    head = "Above what they ask for, by this machine's records or the given speed:"
    return "\n".join([head, *lines, f"  Add: --set-resources {' '.join(options)}"]) if lines else ""


def _legend(estimates: Sequence[Estimate]) -> str:
    """Return what the letters mean, and what no plan can know."""
    used = {estimate.source for estimate in estimates if estimate.seconds is not None}
    lines = [
        f"  {source.mark}  {source.words}; right within a factor of about {source.factor:g}"
        for source in SOURCES
        if source in used
    ]
    if unknown := sorted({estimate.job.model for estimate in estimates if estimate.seconds is None}):
        lines.append(
            f"Unknown shape: {', '.join(unknown)}. Their jobs are counted, their costs are not; give models.*.shape "
            "and layers."
        )
    return "\n".join(["From:", *lines, _LEFT_OUT])
