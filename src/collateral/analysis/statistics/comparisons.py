"""Every ability of every edited model beside the unedited one: effect, interval, p, verdict. Torch-free."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from collateral.analysis.statistics.inference import (
    AT_CHANCE,
    COLLAPSED,
    NOT_EVALUATED,
    Finding,
    Terms,
    adjust_holm,
    decide_verdict,
    infer,
)
from collateral.analysis.statistics.normalized import is_measurable
from collateral.analysis.statistics.pairing import BITS, CELL, JOINT, PairedMetric, iterate_cells
from collateral.analysis.tables.schema import TABLES

SCHEMA = TABLES["comparisons"].schema
_OUTSIDE = (AT_CHANCE, COLLAPSED, NOT_EVALUATED)  # the family: what these cells hold decides nothing


def compare_pairs(
    metrics: Sequence[PairedMetric], collapses: pl.DataFrame | None, terms: Terms
) -> pl.DataFrame:
    """Return one row per model, data set, editor, number of edits and primary metric.

    estimate: on `scale`. difference: edited - unedited. log_ratio: ln(edited / unedited) of perplexities, with
    `edited` their geometric mean over seeds; of bits per byte, that of the perplexities they stand for,
    ln 2 (edited - unedited). p_holm, p_no_harm_holm: adjusted over the family, all measurable cells of one model and
    data set. A metric that is not made of sums over items has an estimate and no interval or p: its verdict is
    `inconclusive`.

    Args:
        metrics: of `pair_items`.
        collapses: the table of that name; where a seed of a cell was not evaluated after a collapse, the cell is
            `not evaluated`: the seeds that are left are those that fared better.
        terms: levels and margins.
    """
    rows = [_row(one, own, numbers, terms) for one in metrics for own, numbers in iterate_cells(one)]
    table = _add_unevaluated(pl.DataFrame(rows, schema=SCHEMA), metrics, collapses)
    return _judge(table, terms)


def _row(one: PairedMetric, own: Mapping[str, Any], numbers: list[int], terms: Terms) -> dict[str, Any]:
    """Return one cell's row; its adjusted p and verdict are those of the family, and not known yet."""
    values = one.checkpoints["value"].to_numpy()[numbers]
    margin = terms.perplexity_margin if one.logarithmic else terms.share_margin
    finite = bool(np.isfinite(values).all()) and (
        one.kind == JOINT or bool(np.isfinite(one.after[numbers]).all() and np.isfinite(one.before).all())
    )
    found, state = Finding(), COLLAPSED
    if finite:
        state = "" if is_measurable(one.about, one.logarithmic) else AT_CHANCE
        found = (
            _joint(one, values) if one.kind == JOINT else infer(one.pair(numbers), one.harmful, margin, terms)
        )
    sides = (found.p_no_harm, found.p_no_gain)
    return {
        **own,
        **_about(one),
        "n": len(one.before) or None,
        "seeds": len(numbers),
        "edited": _edited(one, values),
        **{name: value for name, value in vars(found).items() if name in SCHEMA},
        "margin": margin,
        "equivalent": None
        if None in sides
        else max(side for side in sides if side is not None) < terms.alpha,
        "verdict": state,
    }


def _about(one: PairedMetric) -> dict[str, Any]:
    names = ("suite", "ability", "task", "metric", "higher_is_better", "chance")
    scale = "log_ratio" if one.logarithmic else "difference"
    return {**{name: one.about[name] for name in names}, "unedited": one.about["value"], "scale": scale}


def _edited(one: PairedMetric, values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Return the mean over seeds, of which the estimate is the effect."""
    with np.errstate(all="ignore"):
        if one.logarithmic and one.kind != BITS:
            return float(np.exp(np.log(values).mean()))
        return float(values.mean())


def _joint(one: PairedMetric, values: np.ndarray[Any, np.dtype[np.float64]]) -> Finding:
    """Return the finding of a metric without items: its effect alone."""
    before, edited = one.about["value"], _edited(one, values)
    if not one.logarithmic:
        return Finding(estimate=edited - before)
    return Finding(estimate=float(np.log(edited / before))) if edited > 0 and before > 0 else Finding()


def _add_unevaluated(
    table: pl.DataFrame, metrics: Sequence[PairedMetric], collapses: pl.DataFrame | None
) -> pl.DataFrame:
    """Return the table with a row for every cell of which a seed was not evaluated, in place of what it had."""
    if collapses is None or collapses.is_empty():
        return table
    missing = collapses.filter(~pl.col("evaluated")).select(CELL).unique(maintain_order=True)
    if missing.is_empty():
        return table
    asked = table.select("model", "dataset", "editor", "suite", "task", "metric").unique(maintain_order=True)
    left = missing.join(asked, on=["model", "dataset", "editor"], how="inner")
    known = {tuple(one.about[name] for name in ("model", "suite", "task", "metric")): one for one in metrics}
    rows = [
        {
            **row,
            **_about(known[row["model"], row["suite"], row["task"], row["metric"]]),
            "verdict": NOT_EVALUATED,
        }
        for row in left.iter_rows(named=True)
    ]
    kept = table.join(missing, on=list(CELL), how="anti")
    return pl.concat([kept, pl.DataFrame(rows, schema=SCHEMA)])


def _judge(table: pl.DataFrame, terms: Terms) -> pl.DataFrame:
    """Return the table with the adjusted p of each family, and the verdicts."""
    inside = ~pl.col("verdict").is_in(_OUTSIDE)
    families = [
        rows.with_columns(
            pl.Series(
                f"{name}_holm", adjust_holm(rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy())
            ).fill_nan(None)
            for name in ("p", "p_no_harm")
        )
        for _, rows in table.filter(inside).group_by("model", "dataset", maintain_order=True)
    ]
    judged = [
        decide_verdict(
            row["estimate"],
            row["p_holm"],
            row["p_no_harm_holm"],
            -1.0 if row["higher_is_better"] and row["scale"] == "difference" else 1.0,
            terms.alpha,
        )
        for rows in families
        for row in rows.iter_rows(named=True)
    ]
    within = (
        pl.concat(families).with_columns(verdict=pl.Series(judged, dtype=pl.String))
        if families
        else table.clear()
    )
    order = ("model", "dataset", "editor", "edits", "suite", "task", "metric")
    return pl.concat([within, table.filter(~inside)]).sort(*order).select(SCHEMA.keys())
