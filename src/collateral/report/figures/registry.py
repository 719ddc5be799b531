"""All figures of the report, in the order of its pages."""

from collateral.report.figures import (
    abilities,
    batches,
    beforeafter,
    costs,
    datasets,
    drift,
    edits,
    heatmaps,
    horizons,
    overview,
    predictors,
    questions,
    regularizers,
    retention,
    success,
    tradeoffs,
    verdicts,
    weights,
)
from collateral.report.figures.figure import Figure, instances

__all__ = ["FIGURES", "Figure", "instances"]

FIGURES: tuple[Figure, ...] = (
    *overview.FIGURES,
    *verdicts.FIGURES,
    *horizons.FIGURES,
    *tradeoffs.FIGURES,
    *abilities.FIGURES,
    *beforeafter.FIGURES,
    *datasets.FIGURES,
    *questions.FIGURES,
    *edits.FIGURES,
    *retention.FIGURES,
    *regularizers.FIGURES,
    *batches.FIGURES,
    *success.FIGURES,
    *weights.FIGURES,
    *heatmaps.FIGURES,
    *drift.FIGURES,
    *predictors.FIGURES,
    *costs.FIGURES,
)
