"""Single edits: what is weighed in closed form is what the dense matrices say."""

import polars as pl
import pytest
from test_chain import ROME, Project

from collateral.deltas.update import Factors
from collateral.evaluation.weights.statistics import compute_update_statistics, subtract
from collateral.pipeline import edit_singly as singles
from collateral.pipeline.edit_chain import LinkInputs
from collateral.pipeline.edit_singly import edit_singly

RECT = {**ROME, "regularizer": {"name": "rect", "keep": 40}}


def weighed(project, recipe, edits=2):
    """The table of the single edits' weights."""
    out = project.folder / "out"
    edit_singly(
        LinkInputs(
            model=project.model,
            facts=project.facts,
            sequence=project.sequence,
            known=None,
            contexts=project.contexts,
            moments=None,
            hypernetwork=None,
            reference=[project.reference],
            like=(),
        ),
        recipe=recipe,
        start=0,
        edits=edits,
        seed=0,
        new_tokens=3,
        weigh={"thresholds": [0.077], "quantiles": [0.8, 0.9]},
        dtype=project.dtype,
        device="cpu",
        records=out / "edits.parquet",
        after_edit=out / "after-edit.parquet",
        weights=out / "single-weights.parquet",
    )
    return pl.read_parquet(out / "single-weights.parquet")


@pytest.fixture
def used(monkeypatch):
    """What each update was weighed as, and the rows of the dense change beside it."""
    seen = []

    def watched(link_moved):
        def moved(group, link, weigh):
            for name, before in link.before.items():
                plain = compute_update_statistics(before, subtract(before, link.after[name]))
                seen.append((singles._exact_factors(link, name, before), plain))
            return link_moved(group, link, weigh)

        return moved

    monkeypatch.setattr(singles, "_measure_change", watched(singles._measure_change))
    return seen


@pytest.mark.parametrize(
    ("recipe", "dtype", "closed"),
    [(ROME, "float32", True), (RECT, "float32", False), (ROME, "bfloat16", False)],
)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_an_unmasked_update_is_weighed_in_closed_form(tmp_path, facts, used, family, recipe, dtype, closed):
    """A masked one, and one that half precision rounds, is weighed as what it is; all agree with the dense change."""
    project = Project(tmp_path, facts, family=family, dtype=dtype)
    table = weighed(project, recipe)
    assert [isinstance(update, Factors) for update, _ in used] == [closed] * 2
    for position, (_, plain) in enumerate(used, start=1):
        own = table.filter(position=position)
        for name, _, value in plain:
            assert own.filter(statistic=name)["value"].item() == pytest.approx(value, rel=1e-4)
    ranks = table.filter(statistic="stable_rank_delta")["value"]
    assert ((ranks - 1).abs() < 1e-9).all() == closed  # rank one, until a mask or a rounding touches it


def test_an_average_over_single_edits_is_the_share_among_all_their_elements(tmp_path, facts):
    """RECT section 4.4 averages over edits: of one matrix, that is the share of the pooled elements too."""
    project = Project(tmp_path, facts)
    table = weighed(project, ROME, edits=3)
    shares = table.filter(statistic="delta_share", threshold=0.077)["value"]
    zeros = table.filter(statistic="zero_weights")["value"]
    assert zeros.n_unique() == 1
    elements = 32 * 64 - zeros[0]
    pooled = (shares * elements).sum() / (3 * elements)
    assert shares.mean() == pytest.approx(pooled, rel=1e-12)
    assert (shares * elements - (shares * elements).round()).abs().max() < 1e-6  # counts, not estimates
