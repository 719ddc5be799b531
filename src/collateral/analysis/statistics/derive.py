"""The gathered tables → all that is inferred from them. Torch-free."""

from collections.abc import Mapping

import polars as pl

from collateral.analysis.statistics.comparisons import compare_pairs
from collateral.analysis.statistics.edit_horizon import estimate_horizons
from collateral.analysis.statistics.inference import Terms
from collateral.analysis.statistics.normalized import carry_forward, normalize_abilities
from collateral.analysis.statistics.pairing import pair_items
from collateral.analysis.statistics.predictors import correlate_predictors
from collateral.analysis.statistics.retention import measure_retention
from collateral.analysis.statistics.tradeoffs import compute_areas, compute_tradeoffs
from collateral.analysis.tables.schema import conform_table


def derive_tables(tables: Mapping[str, pl.DataFrame], terms: Terms) -> dict[str, pl.DataFrame]:
    """Return comparisons, normalised, horizons, retention, tradeoffs, areas and predictors.

    Args:
        tables: by name: abilities, ability-items, efficacy, weights; and, where there are any, collapses, drift,
            editors, objectives.
        terms: of the inference.

    Raises:
        CollateralError: items that cannot be paired.
    """
    collapses = tables.get("collapses")
    metrics = pair_items(tables["abilities"], tables["ability-items"])
    left = normalize_abilities(metrics)
    onward = carry_forward(left, collapses)
    points = compute_tradeoffs(onward, tables["efficacy"])
    found = {
        "comparisons": compare_pairs(metrics, collapses, terms),
        "normalised": left,
        "horizons": estimate_horizons(metrics, collapses, terms),
        "retention": measure_retention(tables["efficacy"], tables.get("editors")),
        "tradeoffs": points,
        "areas": compute_areas(points),
        "predictors": correlate_predictors(
            onward, tables["weights"], tables.get("drift"), tables.get("objectives"), terms
        ),
    }
    return {name: conform_table(name, table) for name, table in found.items()}
