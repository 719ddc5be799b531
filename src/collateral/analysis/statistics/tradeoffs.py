"""Harm at matched efficacy: what an editor leaves of the abilities against what its edits achieve. Torch-free."""

import logging

import numpy as np
import numpy.typing as npt
import polars as pl

from collateral.analysis.statistics.retention import HOWS, PROBE, select_first_scores, select_reliability
from collateral.analysis.tables.collect import KEY
from collateral.analysis.tables.schema import TABLES

Numbers = npt.NDArray[np.float64]

SCHEMA = TABLES["tradeoffs"].schema
AREA_SCHEMA = TABLES["areas"].schema
RETENTION = "retention"
_TASK = ("suite", "task", "metric")
_STUDY = ("model", "dataset")

log = logging.getLogger(__name__)


def select_common_tasks(normalised: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of measurable tasks that every checkpoint of their model and data set was evaluated on.

    A mean over other tasks is another mean: a checkpoint with one task more would not compare.
    """
    usable = normalised.filter(pl.col("measurable"))
    point = pl.struct("editor", "edits")
    counted = usable.with_columns(
        points=point.n_unique().over(_STUDY), own=point.n_unique().over([*_STUDY, *_TASK])
    )
    kept = counted.filter(pl.col("points") == pl.col("own")).drop("points", "own")
    for row in (
        counted.select(_STUDY).unique().join(kept.select(_STUDY).unique(), on=_STUDY, how="anti").rows()
    ):
        log.warning(
            "%s on %s: no task was evaluated at every checkpoint, so that no mean ability compares", *row
        )
    return kept


def average_abilities(normalised: pl.DataFrame) -> pl.DataFrame:
    """Return the key and `ability`: the mean over abilities of what is left, each the mean over its tasks."""
    own = select_common_tasks(normalised).group_by([*KEY, "ability"]).agg(pl.col("normalised").mean())
    return own.group_by(KEY.keys()).agg(ability=pl.col("normalised").mean()).sort(KEY.keys())


def compute_efficacies(efficacy: pl.DataFrame) -> pl.DataFrame:
    """Return the key, `efficacy_kind` and `efficacy` of each checkpoint, over all edits up to it.

    teacher-forced, generation: mean reliability at the checkpoint. retention: teacher-forced reliability at the
    checkpoint as a share of that right after each edit, of the probes measured at both; null where that was 0. An
    editor that changes nothing retains all of the nothing that it achieved.
    """
    now = select_reliability(efficacy, "now")
    means = now.unpivot(list(HOWS), index=list(KEY), variable_name="efficacy_kind", value_name="efficacy")
    own = means.group_by([*KEY, "efficacy_kind"]).agg(pl.col("efficacy").mean())
    how = next(iter(HOWS))
    then = select_first_scores(efficacy).select(*PROBE, then=how)
    both = now.join(then, on=PROBE, how="inner").drop_nulls([how, "then"])
    kept = both.group_by(KEY.keys()).agg(now=pl.col(how).sum(), then=pl.col("then").sum())
    share = kept.select(
        *KEY,
        efficacy_kind=pl.lit(RETENTION),
        efficacy=pl.when(pl.col("then") > 0).then(pl.col("now") / pl.col("then")),
    )
    return pl.concat([own, share]).sort(*KEY, "efficacy_kind")


def compute_tradeoffs(normalised: pl.DataFrame, efficacy: pl.DataFrame) -> pl.DataFrame:
    """Return one row per editor, number of edits and kind of efficacy: means over the seeds measured for both.

    on_front: no other point of the model, data set and kind is at least as good in both and better in one.

    Args:
        normalised: of `carry_forward`.
        efficacy: the table of that name.
    """
    joined = average_abilities(normalised).join(compute_efficacies(efficacy), on=list(KEY), how="inner")
    by = ["model", "dataset", "editor", "edits", "efficacy_kind"]
    points = joined.group_by(by).agg(pl.col("ability", "efficacy").mean()).sort(by)
    groups = [
        rows.with_columns(
            on_front=pl.Series(find_front(rows["ability"].to_numpy(), rows["efficacy"].to_numpy()))
        )
        for _, rows in points.group_by([*_STUDY, "efficacy_kind"], maintain_order=True)
    ]
    if not groups:
        return pl.DataFrame(schema=SCHEMA)
    return pl.concat(groups).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()).sort(by)


def find_front(ability: Numbers, efficacy: Numbers) -> npt.NDArray[np.bool_]:
    """Return which points no other point dominates; never one that is not known."""
    known = np.isfinite(ability) & np.isfinite(efficacy)
    found = np.zeros(len(ability), dtype=bool)
    for one in np.flatnonzero(known):
        as_good = known & (ability >= ability[one]) & (efficacy >= efficacy[one])
        better = (ability > ability[one]) | (efficacy > efficacy[one])
        found[one] = not (as_good & better).any()
    return found


def compute_areas(points: pl.DataFrame) -> pl.DataFrame:
    """Return the areas under ability and efficacy against edits, from 0 to the last checkpoint, divided by that.

    Trapezoids. At 0 edits the ability is 1, so that an area of 1 is nothing lost; efficacy has no value there and is
    taken as at the first checkpoint. Checkpoints whose efficacy is not known are left out of its area.

    Args:
        points: of `compute_tradeoffs`.
    """
    rows = []
    by = ("model", "dataset", "editor", "efficacy_kind")
    for name, own in points.group_by(by, maintain_order=True):
        curve = own.sort("edits")
        known = curve.drop_nulls("efficacy")
        rows.append(
            {
                **dict(zip(by, name, strict=True)),
                "ability_area": _area(curve["edits"].to_numpy(), curve["ability"].to_numpy(), 1.0),
                "efficacy_area": _area(known["edits"].to_numpy(), known["efficacy"].to_numpy(), None),
                "last_edits": curve["edits"][-1],
            }
        )
    return pl.DataFrame(rows, schema=AREA_SCHEMA).sort(by)


def _area(edits: npt.NDArray[np.int32], values: Numbers, start: float | None) -> float | None:
    if not len(edits):
        return None
    first = values[0] if start is None else start
    places = np.concatenate([[0.0], edits.astype(float)])
    return float(np.trapezoid(np.concatenate([[first], values]), places) / places[-1])
