"""A plan as text: one line a stage, totals, what it rests on and what it cannot know. Torch-free."""

import math
from collections.abc import Mapping, Sequence

from collateral.io.units import checkpoints, hours, size
from collateral.study.cost.device_rates import CORE_RATES, GPU_RATES, ITSELF, LIKE, SAME, SCALED, Source
from collateral.study.cost.estimate import Estimate, Plan, Stage, Total, total
from collateral.study.cost.resources import Need, largest
from collateral.study.jobs import Job

_MARKS: dict[Source, str] = {ITSELF: "r", SAME: "m", LIKE: "l", SCALED: "s", CORE_RATES: "c", GPU_RATES: "g"}
GPU_MEMORY = 80e9  # ASSUME: memory of a large GPU as clusters have it; unit: bytes
_UNITS = {"cpu": "CPU core time", "cuda": "GPU time"}


def plan_text(plan: Plan, title: str, needs: Mapping[Job, Need], notes: Sequence[str]) -> str:
    """Return a plan as a table and sentences.

    Args:
        plan: to be told.
        title: of the study.
        needs: job → what it asks a cluster for.
        notes: what else there is to say, such as why nothing is known of what is still to do.
    """
    kinds = [kind for kind in _UNITS if any(one.kind == kind for one in plan.estimates)]
    head = ["stage", "jobs", "to do"]
    for kind in kinds:
        head += [_UNITS[kind], "to do", "between"]
    head += ["memory", *(["GPU memory"] if "cuda" in kinds else []), "disk", "from"]
    rows = [_row(stage.rule, stage.estimates, stage, kinds) for stage in plan.stages]
    rows.append(_row("total", plan.estimates, None, kinds))
    parts = [
        f"Plan of '{title}'",
        _aligned([head, *rows]),
        _models(plan, kinds),
        _stored(plan),
        _longest(plan),
        _asked(plan, needs),
        _beyond(plan, needs),
        *notes,
        _legend(plan),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def gpu_notes(plan: Plan, gpus: Mapping[str, int]) -> list[str]:
    """Return a sentence for each model that is spread over GPUs, or that no single GPU holds.

    Args:
        plan: of the study.
        gpus: model → GPUs that the config gives it.
    """
    notes = []
    for model, count in gpus.items():
        own = (one.memory for one in plan.estimates if one.job.model == model and one.kind == "cuda")
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


def _row(name: str, estimates: Sequence[Estimate], stage: Stage | None, kinds: Sequence[str]) -> list[str]:
    known = all(one.waiting is not None for one in estimates)
    left = [one for one in estimates if one.waiting is not False]
    cells = [name, str(len(estimates)), str(len(left)) if known else "?"]
    for kind in kinds:
        own = [one for one in estimates if one.kind == kind and one.seconds is not None]
        waiting = total(one for one in own if one.waiting is not False)
        cells += [hours(total(own).hours), hours(waiting.hours), _range(waiting)] if own else ["-", "-", "-"]
    cells.append(size(max((one.host for one in estimates), default=0)))
    if "cuda" in kinds:
        cells.append(size(max((one.memory for one in estimates if one.kind == "cuda"), default=0)))
    cells.append(size(sum(one.disk for one in estimates)))
    return [*cells, "".join(_MARKS[source] for source in stage.sources) if stage else ""]


def _range(found: Total) -> str:
    return f"{hours(found.low)} to {hours(found.high)}" if found.hours else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns: names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _models(plan: Plan, kinds: Sequence[str]) -> str:
    """Return the same by model, where there are several."""
    names = list(dict.fromkeys(one.job.model for one in plan.estimates if one.job.model))
    if len(names) < 2:
        return ""
    rows = []
    for name in names:
        own = [one for one in plan.estimates if one.job.model == name]
        edits = [one for one in own if one.job.rule in {"edit", "edit_singly"}]
        tests = [one for one in own if one.job.rule in {"evaluate_abilities", "evaluate_unedited"}]
        row = [name, str(len(own))]
        for kind in kinds:
            hour = total(one for one in own if one.kind == kind)
            row += [hours(hour.hours), _range(hour)]
        row += [size(max((one.memory for one in part), default=0)) for part in (edits, tests)]
        rows.append([*row, size(sum(one.disk for one in own))])
    head = ["model", "jobs"]
    for kind in kinds:
        head += [_UNITS[kind], "between"]
    return _aligned([[*head, "memory to edit", "to evaluate", "disk"], *rows])


def _stored(plan: Plan) -> str:
    """Return what the chains' checkpoints take, beside what they would take as whole models."""
    links = [one for one in plan.estimates if one.checkpoint]
    if not links:
        return ""
    kept, whole = sum(one.disk for one in links), sum(one.checkpoint for one in links)
    return (
        f"{checkpoints(len(links))} on disk: {size(kept)} as deltas; full checkpoints would be {size(whole)}."
    )


def _longest(plan: Plan) -> str:
    found = plan.longest_chain()
    if found is None:
        return ""
    job, seconds = found
    return (
        f"No number of machines makes it faster than {hours(seconds / 3600)}: that is how long {job.editor} on "
        f"{job.model} and {job.dataset} takes for its {job.edits} edits, one after another."
    )


def _asked(plan: Plan, needs: Mapping[Job, Need]) -> str:
    """Return the largest request of each rule that has jobs to do; rules that ask for the same share a line."""
    rules: dict[Need, list[str]] = {}
    for stage in plan.stages:
        asked = [needs[one.job] for one in stage.waiting if one.job in needs]
        if asked:
            rules.setdefault(largest(asked), []).append(stage.rule)
    if not rules:
        return ""
    rows = [["  memory", "time", "GPUs", "asked by the largest job of"]]
    for need, names in sorted(rules.items(), key=lambda item: (-item[0].gpus, -item[0].memory)):
        memory, time = f"  {size(1e6 * need.memory)}", hours(need.minutes / 60)
        rows.append([memory, time, str(need.gpus or "-"), ", ".join(names)])
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join([*map(str.rjust, row[:3], widths), row[3]]) for row in rows]
    return "\n".join(
        ["Asked of a cluster; a job that fails asks for twice as much, then three times:", *lines]
    )


def _beyond(plan: Plan, needs: Mapping[Job, Need]) -> str:
    """Return what a cluster would stop: jobs that this machine's records or speed put above what they ask for."""
    lines, options = [], []
    for stage in plan.stages:
        known = [
            (one, needs[one.job]) for one in stage.waiting if one.job in needs and one.seconds is not None
        ]
        large = [(one.host / 1e6, need.memory) for one, need in known if one.host / 1e6 > 1.05 * need.memory]
        if large:
            most, asked = max(large)
            lines.append(f"  {stage.rule}: {size(1e6 * most)} of main memory, not {size(1e6 * asked)}")
            options.append(f"{stage.rule}:mem_mb={_above(most)}")
        bounds = [(_longest_minutes(one), need.minutes) for one, need in known]
        long = [(bound, asked) for bound, asked in bounds if bound > 1.1 * asked]
        if long:
            bound, asked = max(long)
            lines.append(f"  {stage.rule}: up to {hours(bound / 60)}, not {hours(asked / 60)}")
            options.append(f"{stage.rule}:runtime={_above(bound)}")
    if not lines:
        return ""
    head = "More than they ask for, by what this machine is said or was seen to need:"
    return "\n".join([head, *lines, f"  Add: --set-resources {' '.join(options)}"])


def _longest_minutes(one: Estimate) -> float:
    """Return the time of a job, in minutes, if its estimate is as much too low as its source may be."""
    return (one.seconds or 0) * one.source.factor / 60


def _above(value: float) -> int:
    """Return a round number above a value, with a tenth to spare."""
    step = 10 ** max(1, len(str(int(value))) - 2)
    return int(-(-1.1 * value // step) * step)


def _legend(plan: Plan) -> str:
    """Return what the letters mean, and what no plan can know."""
    used = {source for stage in plan.stages for source in stage.sources}
    lines = [
        f"  {mark}  {source.words}; right within a factor of about {source.factor:g}"
        for source, mark in _MARKS.items()
        if source in used
    ]
    unknown = sorted({model for stage in plan.stages for model in stage.unknown})
    if unknown:
        lines.append(
            f"Unknown shape: {', '.join(unknown)}. Their jobs are counted, their costs are not; give models.*.shape "
            "and layers."
        )
    lines.append(
        "Not known before: how many facts a model knows, edits that stop or are skipped, an optimisation or a "
        "training that ends early, the network's speed, other programs on the machine."
    )
    return "\n".join(["From:", *lines])
