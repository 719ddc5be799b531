"""Two results folders, B against A, wherever their items agree: paired abilities and probes, weights beside weights.

Torch-free.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from collateral.analysis.statistics.comparisons import compare_pairs
from collateral.analysis.statistics.inference import Terms, adjust_holm, infer
from collateral.analysis.statistics.pairing import pair_items
from collateral.analysis.statistics.resampling import Paired
from collateral.analysis.tables.collect import KEY, UNEDITED, Columns

Tables = Mapping[str, pl.DataFrame]

_TASK = ["suite", "task"]
_ITEM = ["task_hash", "doc_hash", "doc_id", "target_hash"]
_FINDING: Columns = {
    "n": pl.Int32,
    "a": pl.Float64,
    "b": pl.Float64,
    "estimate": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "interval": pl.String,
    "p": pl.Float64,
    "test": pl.String,
    "worse": pl.Int32,
    "better": pl.Int32,
    "p_holm": pl.Float64,
}
ABILITIES: Columns = {
    **KEY,
    **dict.fromkeys(("suite", "ability", "task", "metric", "scale"), pl.String()),
    **_FINDING,
}
PROBES: Columns = {**KEY, "kind": pl.String, "when": pl.String, "measure": pl.String, **_FINDING}
UNPAIRED: Columns = {**KEY, "what": pl.String, "reason": pl.String}
WEIGHTS: Columns = {
    **KEY,
    "parameter": pl.String,
    "statistic": pl.String,
    "threshold": pl.Float64,
    "a": pl.Float64,
    "b": pl.Float64,
    "relative": pl.Float64,
}
MEASURES = ("token_accuracy", "token_agreement", "prefers_target", "generated_match", "generated_agreement")
_PROBE = ["kind", "when", "fact_id", "probe"]


def compare_runs(a: Tables, b: Tables, terms: Terms) -> dict[str, pl.DataFrame]:
    """Return B - A of abilities, probes and weights, and what cannot be paired.

    Args:
        a: the tables abilities, ability-items, efficacy and weights of A.
        b: those of B.
        terms: of the inference.
    """
    unpaired = find_unpaired_tasks(a, b)
    probes = a["efficacy"], b["efficacy"]
    return {
        "abilities": compare_abilities(a, b, unpaired, terms),
        "probes": compare_probes(*probes, terms),
        "unpaired": unpaired.vstack(find_unpaired_probes(*probes)),
        "weights": compare_weights(a["weights"], b["weights"]),
    }


def find_unpaired_tasks(a: Tables, b: Tables) -> pl.DataFrame:
    """Return the tasks that both have scored at a checkpoint and that cannot be paired, and why.

    Args:
        a: the tables abilities and ability-items of A.
        b: those of B.
    """
    by = [*KEY, *_TASK]
    both = _describe_items(a["ability-items"]).join(
        _describe_items(b["ability-items"]), on=by, how="full", coalesce=True, nulls_equal=True, suffix="_b"
    )
    for own in (a, b):  # what only one has is no pair at all
        groups = own["abilities"].select(by).unique()
        parts = own["ability-items"].select(by).unique()
        both = both.join(pl.concat([groups, parts]).unique(), on=by, how="semi", nulls_equal=True)
    reason = (
        pl.when(pl.col("version").is_null())
        .then(pl.lit("items only in B"))
        .when(pl.col("version_b").is_null())
        .then(pl.lit("items only in A"))
        .when(pl.col("version") != pl.col("version_b"))
        .then(pl.format("another version of the task: task_hash {} in A, {} in B", "version", "version_b"))
        .when(pl.col("items") != pl.col("items_b"))
        .then(pl.format("other items: {} in A, {} in B", "n", "n_b"))
    )
    found = both.with_columns(reason=reason).filter(pl.col("reason").is_not_null())
    return found.with_columns(what=pl.format("{} / {}", *_TASK)).select(list(UNPAIRED)).sort(*KEY, "what")


def _describe_items(table: pl.DataFrame) -> pl.DataFrame:
    """Return per checkpoint and task its version, its items in one text, and their number."""
    asked = table.select(*KEY, *_TASK, *_ITEM).unique()
    return asked.group_by([*KEY, *_TASK]).agg(
        version=pl.col("task_hash").unique().sort().str.join(" "),
        items=pl.concat_str(_ITEM, separator=" ").sort().str.join("\n"),
        n=pl.len(),
    )


def compare_abilities(a: Tables, b: Tables, unpaired: pl.DataFrame, terms: Terms) -> pl.DataFrame:
    """Return B - A of each checkpoint and primary metric that both have, the unedited models included.

    Items are paired as edited ones are with the unedited model's, and so are estimate, interval and p; p_holm is
    corrected over all rows.

    Args:
        a: the tables abilities and ability-items of A.
        b: those of B.
        unpaired: of `find_unpaired_tasks`; these are left out.
        terms: of the inference.
    """
    by = [*KEY, *_TASK, "metric"]
    primary = [own["abilities"].filter("primary") for own in (a, b)]
    common = primary[0].join(primary[1], on=by, how="semi", nulls_equal=True).select(by)
    common = _drop_unpaired(common, unpaired)
    checkpoints = {_name(key): key for key in common.select(list(KEY)).unique().rows()}
    scores, items = [], []
    for side, own in (("A", a), ("B", b)):
        scores.append(_as_model(own["abilities"].join(common, on=by, how="semi", nulls_equal=True), side))
        asked = own["ability-items"].join(
            common.select(list(KEY)).unique(), on=list(KEY), how="semi", nulls_equal=True
        )
        items.append(_as_model(_drop_unpaired(asked, unpaired), side))
    found = compare_pairs(pair_items(pl.concat(scores), pl.concat(items)), None, terms)
    rows = [
        {
            **row,
            **dict(zip(KEY, checkpoints[row["model"]], strict=True)),
            "a": row["unedited"],
            "b": row["edited"],
        }
        for row in found.to_dicts()
    ]
    return _correct_holm([{name: row.get(name) for name in ABILITIES} for row in rows], ABILITIES)


def _drop_unpaired(table: pl.DataFrame, unpaired: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of other tasks than the unpaired ones, and of other groups than those that hold one."""
    keyed = table.with_columns(what=pl.format("{} / {}", *_TASK)).with_row_index("row")
    lost = keyed.join(unpaired.select(*KEY, lost="what"), on=list(KEY), how="inner", nulls_equal=True)
    same = (pl.col("what") == pl.col("lost")) | pl.col("lost").str.starts_with(pl.col("what") + "_")
    return keyed.join(lost.filter(same), on="row", how="anti").drop("row", "what")


def _name(key: Sequence[object]) -> str:
    return "\x1f".join("" if one is None else str(one) for one in key)


def _as_model(table: pl.DataFrame, side: str) -> pl.DataFrame:
    """Return rows whose checkpoint is their model's name: A's as the unedited model, B's as an edit of it."""
    name = pl.concat_str([pl.col(one).cast(pl.String).fill_null("") for one in KEY], separator="\x1f")
    own: dict[str, tuple[object, object, object, object]] = {
        "A": (None, None, UNEDITED, 0),
        "B": ("B", 0, "B", 1),
    }
    values = dict(zip(("dataset", "seed", "editor", "edits"), own[side], strict=True))
    return table.with_columns(
        name.alias("model"),
        *(pl.lit(value, dtype=KEY[column]).alias(column) for column, value in values.items()),
    )


def _correct_holm(rows: list[dict[str, object]], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return the rows with Holm's p over all of them."""
    table = pl.DataFrame(rows, schema=schema)
    values = table["p"].fill_null(float("nan")).to_numpy()
    order = [name for name in schema if name not in _FINDING]
    return table.with_columns(p_holm=pl.Series(adjust_holm(values), dtype=pl.Float64).fill_nan(None)).sort(
        order
    )


def find_unpaired_probes(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """Return the checkpoints of both whose probes are not all the same, and how many only one has.

    Args:
        a: the table efficacy of A.
        b: that of B.
    """
    by = [*KEY, *_PROBE, "prompt", "target"]
    keys = [own.select(list(KEY)).unique() for own in (a, b)]
    common = keys[0].join(keys[1], on=list(KEY), how="semi", nulls_equal=True)
    lost = []
    for side, own, other in (("A", a, b), ("B", b, a)):
        left = own.join(common, on=list(KEY), how="semi", nulls_equal=True)
        left = left.join(other, on=by, how="anti", nulls_equal=True)
        lost.append(
            left.group_by([*KEY, "kind", "when"])
            .agg(reason=pl.format("{} probes only in {}", pl.len(), pl.lit(side)))
            .with_columns(what=pl.format("{}, {}", "kind", "when"))
        )
    return pl.concat(lost).select(list(UNPAIRED)).sort(*KEY, "what", "reason")


def compare_probes(a: pl.DataFrame, b: pl.DataFrame, terms: Terms) -> pl.DataFrame:
    """Return B - A of each checkpoint, kind of probe, time and measure, over the probes that both have.

    What is paired is a fact: its probes of a kind rest on one another.

    Args:
        a: the table efficacy of A.
        b: that of B.
        terms: of the inference.
    """
    by = [*KEY, *_PROBE, "prompt", "target"]
    both = a.join(b, on=by, how="inner", nulls_equal=True, suffix="_b", maintain_order="left")
    rows = []
    for measure in MEASURES:
        sides = [pl.col(name).cast(pl.Float64) for name in (measure, f"{measure}_b")]
        known = both.select(*by, a=sides[0], b=sides[1]).drop_nulls(["a", "b"])
        facts = known.group_by([*KEY, "kind", "when", "fact_id"], maintain_order=True).agg(
            pl.col("a", "b").sum(), weight=pl.len().cast(pl.Float64)
        )
        for key, own in facts.group_by([*KEY, "kind", "when"], maintain_order=True):
            weight = own["weight"].to_numpy()
            pair = Paired(own["a"].to_numpy(), weight, own["b"].to_numpy()[None, :], weight[None, :])
            found = vars(infer(pair, -1.0, terms.share_margin, terms))
            rows.append(
                {
                    **dict(zip([*KEY, "kind", "when"], key, strict=True)),
                    "measure": measure,
                    "n": len(own),
                    "a": float(np.sum(pair.before) / np.sum(weight)),
                    "b": float(np.sum(pair.after) / np.sum(weight)),
                    **{name: value for name, value in found.items() if name in _FINDING},
                }
            )
    return _correct_holm(rows, PROBES)


def compare_weights(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """Return the weight statistics that both have, and (b - a) / |a|; null where a is 0 and b is not.

    Args:
        a: the table weights of A.
        b: that of B.
    """
    by = [*KEY, "parameter", "statistic", "threshold"]
    both = a.join(b, on=by, how="inner", nulls_equal=True, suffix="_b").rename({"value": "a", "value_b": "b"})
    change = (
        pl.when(pl.col("a").eq_missing(pl.col("b")))
        .then(0.0)
        .when(pl.col("a") != 0)
        .then((pl.col("b") - pl.col("a")) / pl.col("a").abs())
    )
    return both.with_columns(relative=change).select(list(WEIGHTS)).sort(by)
