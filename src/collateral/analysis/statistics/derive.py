"""The gathered tables → all that is inferred from them. Torch-free."""

from collections.abc import Mapping

import polars as pl

from collateral.analysis.statistics.comparisons import comparisons
from collateral.analysis.statistics.edit_horizon import horizons
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.statistics.normalized import carried, normalised
from collateral.analysis.statistics.pairing import measured
from collateral.analysis.statistics.predictors import predictors
from collateral.analysis.statistics.retention import retention
from collateral.analysis.statistics.tradeoffs import areas, tradeoffs
from collateral.analysis.tables.schema import conformed


def derived(tables: Mapping[str, pl.DataFrame], terms: Terms) -> dict[str, pl.DataFrame]:
    """Return comparisons, normalised, horizons, retention, tradeoffs, areas and predictors.

    Args:
        tables: by name: abilities, ability-items, efficacy, weights; and, where there are any, collapses, drift,
            editors, objectives.
        terms: of the inference.

    Raises:
        CollateralError: items that cannot be paired.
    """
    collapses = tables.get("collapses")
    metrics = measured(tables["abilities"], tables["ability-items"])
    left = normalised(metrics)
    onward = carried(left, collapses)
    points = tradeoffs(onward, tables["efficacy"])
    found = {
        "comparisons": comparisons(metrics, collapses, terms),
        "normalised": left,
        "horizons": horizons(metrics, collapses, terms),
        "retention": retention(tables["efficacy"], tables.get("editors")),
        "tradeoffs": points,
        "areas": areas(points),
        "predictors": predictors(
            onward, tables["weights"], tables.get("drift"), tables.get("objectives"), terms
        ),
    }
    return {name: conformed(name, table) for name, table in found.items()}
