"""The model at a checkpoint of an adapter: attached within, untouched outside, and no weight to weigh or save."""

import polars as pl
import pytest
import torch
from test_chain import ROME, UNSTABLE, Project

from collateral.data.edit_order import chosen_facts
from collateral.data.facts import read_facts
from collateral.deltas.file_format import read_increment
from collateral.editing.checkpoint import at_checkpoint
from collateral.errors import CollateralError
from collateral.evaluation.efficacy import measure_facts, read_reference
from collateral.evaluation.weights.statistics import weigh_checkpoint
from collateral.models.language_model import load_model
from collateral.models.tensor_file import read_tensors
from collateral.pipeline.edit_chain import export_checkpoint
from collateral.report.figures.weights import describe_adapters

GRACE = {
    "method": "grace",
    "settings": {"layer": 1, "epsilon": 0.01, "n_iter": 10},
    "regularizer": {},
    "batch_size": 1,
    "unstable": UNSTABLE,
}
pytestmark = pytest.mark.xdist_group("checkpoints")
WEIGHTS = {"thresholds": [0.077], "quantiles": [0.5], "heatmap_blocks": 4}


@pytest.fixture(scope="module")
def project(tmp_path_factory, six_facts):
    """Tests leave the chain as it is."""
    made = Project(tmp_path_factory.mktemp("codebook"), list(six_facts))
    made.link("grace", 0, 1, GRACE)
    made.link("grace", 1, 3, GRACE)
    return made


def state_of(project, number=-1):
    return project.deltas("grace")[number].parent / "state.safetensors"


def test_the_codebook_is_the_checkpoint(project):
    """Every edit of the chain answers as it did right after it was made, and without the state nothing does."""
    chosen = chosen_facts({f.fact_id: f for f in read_facts(project.facts)}, project.sequence, None, 3)
    reference = read_reference([project.reference])
    model = load_model(project.model)
    with at_checkpoint(model, project.deltas("grace"), state_of(project)):
        now = measure_facts(model, chosen, "now", 3, reference)
    plain = measure_facts(model, chosen, "now", 3, reference)
    after = pl.concat(pl.read_parquet(p.parent / "after-edit.parquet") for p in project.deltas("grace"))
    right_after = {(r["fact_id"], r["kind"], r["probe"]): r for r in after.to_dicts()}
    for row, unedited in zip(now, plain, strict=True):
        key = row["fact_id"], row["kind"], row["probe"]
        if row["kind"] == "reliability":
            assert row["nll_target"] == right_after[key]["nll_target"] < unedited["nll_target"]
        assert unedited["nll_target"] == reference[key]["nll_target"]
    assert read_increment(project.deltas("grace")[-1]).metadata["parameters"] == {}


def test_a_chain_in_links_has_the_codebook_of_one_run(project):
    one, _ = read_tensors(project.link("again", 0, 3, GRACE).parent / "state.safetensors", "a state")
    links, _ = read_tensors(state_of(project), "a state")
    assert links["keys"].shape[0] == 3
    assert all(torch.equal(one[name], links[name]) for name in links)


def test_a_state_of_another_number_of_edits_is_refused(project):
    model = load_model(project.model)
    with (
        pytest.raises(CollateralError, match="the state of another editor or number of edits"),
        at_checkpoint(model, project.deltas("grace"), state_of(project, 0)),
    ):
        pass


def test_there_is_no_model_to_save(project, tmp_path):
    with pytest.raises(CollateralError, match=r"grace changes no weight.*state\.safetensors") as caught:
        export_checkpoint(project.model, project.deltas("grace"), "float32", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_distances_are_zero_and_the_page_says_why(project, tmp_path):
    paths = tmp_path / "w.parquet", tmp_path / "h.parquet"
    weigh_checkpoint(project.model, project.deltas("grace"), WEIGHTS, *paths, state_of(project))
    table = pl.read_parquet(paths[0])
    found = dict(table.select("statistic", "value").iter_rows())
    assert found == {
        "manhattan": 0.0,
        "nonzero_share": 0.0,
        "fro_delta": 0.0,
        "spectral_delta": 0.0,
        "relative_fro": 0.0,
        "delta_share": 0.0,
        "codebook_keys": 3.0,
    }
    assert pl.read_parquet(paths[1]).is_empty()
    own = table.with_columns(editor=pl.lit("grace"), edits=pl.lit(3), seed=pl.lit(0))
    assert describe_adapters(own) == (
        " grace changes no weight: its edits live in a codebook of 3 keys, which replaces activations of layer 1; "
        "its distances are zero by definition."
    )
    rome = own.filter(pl.col("statistic") != "codebook_keys").with_columns(editor=pl.lit("rome"))
    assert describe_adapters(rome) == ""


def test_an_editor_of_weights_needs_no_state(project):
    project.link("rome", 0, 1, ROME)
    live, base = load_model(project.model), load_model(project.model)
    with at_checkpoint(live, project.deltas("rome")):
        assert not torch.equal(live.matrix(live.down_name(1)), base.matrix(base.down_name(1)))
