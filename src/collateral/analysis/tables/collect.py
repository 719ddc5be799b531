"""Many small files → tidy tables: one row is one number with its full key. Torch-free."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from collateral.errors import CollateralError
from collateral.io.atomic import read_sealed_json
from collateral.io.parquet import read_table
from collateral.tasks.task_yaml import filtered_metric

Columns = dict[str, type[pl.DataType] | pl.DataType]
KEY: Columns = {
    "model": pl.String,
    "dataset": pl.String,
    "seed": pl.Int32,
    "editor": pl.String,
    "edits": pl.Int32,
}
UNEDITED = "unedited"
_EDITED = re.compile(
    r"results/edited/(?P<model>[^/]+)/(?P<dataset>[^/]+)/seed-(?P<seed>\d+)/(?P<editor>[^/]+)/"
    r"(?:edits|singles)-(?P<edits>\d+)/"
)
_REFERENCE = re.compile(
    r"results/unedited/(?P<model>[^/]+)/(?P<dataset>[^/]+)/seed-(?P<seed>\d+)/edits-(?P<edits>\d+)/"
)
_UNEDITED = re.compile(r"results/unedited/(?P<model>[^/]+)/")
_KNOWN = re.compile(r"results/prepared/(?P<model>[^/]+)/known-(?P<dataset>.+)\.parquet$")


def parse_key(path: Path) -> dict[str, Any]:
    """Return model, dataset, seed, editor and edits of a result file, from where it lies.

    The unedited reference has the editor `unedited` and 0 edits.

    Raises:
        CollateralError: the path is not one of the workflow's.
    """
    text = Path(path).as_posix()
    found = _EDITED.search(text)
    if found:
        return {**found.groupdict(), "seed": int(found["seed"]), "edits": int(found["edits"])}
    found = _REFERENCE.search(text)
    if found:
        return {
            "model": found["model"],
            "dataset": found["dataset"],
            "seed": int(found["seed"]),
            "editor": UNEDITED,
            "edits": 0,
        }
    found = _UNEDITED.search(text)
    if found:
        return {"model": found["model"], "dataset": None, "seed": None, "editor": UNEDITED, "edits": 0}
    raise CollateralError(
        f"{path}: not a result of the workflow; name a file in results/edited/… or results/unedited/…"
    )


def _read_keyed(path: Path) -> pl.DataFrame:
    """Return a parquet table with its key in front."""
    table = read_table(path, "a result")
    key = parse_key(path)
    front = [pl.lit(key[name], dtype=kind).alias(name) for name, kind in KEY.items()]
    return table.select(*front, pl.all())


def stack_tables(paths: Sequence[Path]) -> pl.DataFrame:
    """Return all rows of some tables of one kind, each with its key."""
    if not paths:
        return pl.DataFrame(schema=KEY)
    return pl.concat([_read_keyed(path) for path in paths], how="vertical")


def collect_abilities(
    paths: Sequence[Path], suites: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> pl.DataFrame:
    """Return one row per checkpoint, suite, task and metric.

    Args:
        paths: lm-eval's result files; the stem of each is its suite.
        suites: per suite and task: `ability`, `chance`, `primary`.
    """
    columns: Columns = {
        **KEY,
        "suite": pl.String,
        "task": pl.String,
        "ability": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
        "stderr": pl.Float64,
        "n": pl.Int32,
        "chance": pl.Float64,
        "higher_is_better": pl.Boolean,
        "primary": pl.Boolean,
    }
    rows = [
        {**parse_key(path), "suite": path.stem, **row}
        for path in paths
        for row in read_result_rows(path, suites.get(path.stem, {}))
    ]
    return pl.DataFrame(rows, schema=columns)


def read_result_rows(path: Path, about: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per task and metric of a stored result.

    Args:
        path: lm-eval's JSON.
        about: per task or group of the suite `ability`, `chance` (of metrics of which more is better), the `primary`
            metric and those that are so `also`, as far as they are known.

    Raises:
        CollateralError: not an lm-eval result.
    """
    result = read_sealed_json(path, "an lm-eval result")
    if not isinstance(result, dict) or "results" not in result or "n-samples" not in result:
        raise CollateralError(f"{path}: not an lm-eval result; delete it and run the workflow again")
    rows = []
    groups = result.get("group_subtasks", {})
    below = {member for members in groups.values() for member in members}
    for task, numbers in result["results"].items():
        known = about.get(task, {})
        # What a group consists of is kept, but the group stands for it unless the suite names it too.
        part = task in below and task not in about
        for key, value in numbers.items():
            metric, _, filtered = key.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not filtered:
                continue
            stderr = numbers.get(f"{metric}_stderr,{filtered}")
            filters = sum(other.startswith(f"{metric},") for other in numbers)
            names = {filtered_metric(metric, filtered), *([metric] if filters == 1 else [])}
            asked = {known.get("primary", filtered_metric(metric, filtered)), *known.get("also", ())}
            higher = bool(result["higher_is_better"].get(task, {}).get(metric, True))
            rows.append(
                {
                    "task": task,
                    "ability": known.get("ability", task),
                    "metric": filtered_metric(metric, filtered),
                    "value": float(value),
                    "stderr": float(stderr) if _number(stderr) else None,
                    "n": _count(task, groups, result["n-samples"]),
                    "chance": known.get("chance") if higher else None,
                    "higher_is_better": higher,
                    "primary": not part and bool(asked & names),
                }
            )
    return rows


def is_perplexity(metric: str) -> bool:
    """Return whether a metric is a perplexity, which is compared by ratio."""
    return "perplexity" in metric or "ppl" in metric


def is_above_chance(value: Any, stderr: Any, chance: Any) -> Any:
    """Return whether a score is better than guessing by two standard errors: numbers, or expressions of columns."""
    return value - 2 * stderr > chance


def collect_skipped(paths: Sequence[Path]) -> pl.DataFrame:
    """Return one row per checkpoint and suite that was not evaluated, as its chain had collapsed before."""
    found = [(path, read_sealed_json(path, "an lm-eval result").get("not_evaluated")) for path in paths]
    rows = [
        {**parse_key(path), "suite": path.stem, "collapsed_at": why["collapsed_at"]}
        for path, why in found
        if why
    ]
    return pl.DataFrame(rows, schema={**KEY, "suite": pl.String, "collapsed_at": pl.Int32})


def _count(task: str, groups: Mapping[str, Sequence[str]], samples: Mapping[str, Any]) -> int:
    """Return the number of items of a task, or of all tasks below a group."""
    if task in samples:
        return int(samples[task]["effective"])
    return sum(_count(member, groups, samples) for member in groups.get(task, ()))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def collect_items(paths: Sequence[Path]) -> pl.DataFrame:
    """Return one row per checkpoint, suite, task, item and metric; refuse tasks whose text has changed.

    Raises:
        CollateralError: two checkpoints were scored on different versions of a task.
    """
    tables = [
        _read_keyed(path).with_columns(suite=pl.lit(path.name.removesuffix(".items.parquet")))
        for path in paths
    ]
    if not tables:
        return pl.DataFrame(schema={**KEY, "suite": pl.String})
    table = pl.concat(tables)
    versions = table.group_by("suite", "task").agg(pl.col("task_hash").n_unique().alias("count"))
    mixed = versions.filter(pl.col("count") > 1)
    if len(mixed):
        raise CollateralError(
            f"the task '{mixed['task'][0]}' was scored in different versions; delete the results/…/abilities of "
            f"the suite '{mixed['suite'][0]}' and run again: their items cannot be paired"
        )
    return table


def collect_efficacy(
    now: Sequence[Path], after_edit: Sequence[Path], reference: Sequence[Path]
) -> pl.DataFrame:
    """Return one row per checkpoint, fact and probe: the unedited model, right after the edit, and now.

    The unedited model was probed on blocks of facts; its rows are those of facts that were edited.
    """
    edited, before = stack_tables([*now, *after_edit]), stack_tables(reference)
    return pl.concat([edited, before.join(edited, on=["model", "dataset", "seed", "fact_id"], how="semi")])


def collect_objectives(reference: Sequence[Path], facts: Sequence[Path]) -> pl.DataFrame:
    """Return how surprising each fact's edit target is to the unedited model, before any edit.

    perplexity = exp(-1/T Σ log p(target token | prompt, earlier target tokens)) over the T tokens of the edit target:
    what the D4S paper sets the harm of question types against.

    Args:
        reference: the unedited model's probes.
        facts: the data sets; the stem of each is its name.
    """
    types = [
        read_table(path, "a facts file")
        .select("fact_id", "question_type", "case_id")
        .with_columns(dataset=pl.lit(path.stem))
        for path in facts
    ]
    asked = stack_tables(reference).filter(kind="reliability").drop("editor", "edits")
    told = asked.join(pl.concat(types), on=["dataset", "fact_id"], how="left")
    columns = ("model", "dataset", "seed", "position", "fact_id", "case_id", "question_type", "target")
    return told.select(*columns, nll="nll_target", perplexity=pl.col("nll_target").exp())


def count_known_facts(paths: Sequence[Path]) -> pl.DataFrame:
    """Return model, dataset, number of facts, and how many of them the unedited model knows."""
    rows = []
    for path in paths:
        found = _KNOWN.search(Path(path).as_posix())
        if found is None:
            raise CollateralError(
                f"{path}: not a table of known facts; name a file results/prepared/…/known-….parquet"
            )
        table = read_table(path, "a table of known facts", ("known",))
        rows.append((found["model"], found["dataset"], len(table), int(table["known"].sum())))
    schema: Columns = {"model": pl.String, "dataset": pl.String, "facts": pl.Int32, "known": pl.Int32}
    return pl.DataFrame(rows, schema=schema, orient="row")
