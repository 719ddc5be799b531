"""Chains of editors that carry a state, a history against W_0, raw weights or a codebook; and unstable edits."""

import ast
from pathlib import Path

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from test_chain import Project, making

from collateral.deltas.file_format import read_increment
from collateral.deltas.replay import apply_chain
from collateral.editing import session
from collateral.editing.method import UnstableEditError
from collateral.editing.prepare.second_moments import Moment, write_moments
from collateral.editing.state import read_state, recipe_sha256
from collateral.evaluation.weights.statistics import weigh_checkpoint
from collateral.models.language_model import load_model
from plainmass import second_moment

UNSTABLE = {"action": "stop", "limit": 10.0}
MASS = {"layers": [1, 2], "v_num_grad_steps": 2, "mom2_update_weight": 1.0}


def recipe(method, settings, regularizer=None, batch_size=1, unstable=None):
    return {
        "method": method,
        "settings": settings,
        "regularizer": regularizer or {},
        "batch_size": batch_size,
        "unstable": unstable or UNSTABLE,
    }


RECIPES = {
    "memit-seq": recipe("memit", {**MASS, "sequential": True}),
    "alphaedit": recipe("alphaedit", {"layers": [1, 2], "v_num_grad_steps": 2, "nullspace_threshold": 0.3}),
    "d4s": recipe("d4s", MASS),
    "d4s-rect": recipe("d4s", MASS, {"name": "rect", "keep": 40}),
    "memit-rect-within": recipe("memit", MASS, {"name": "rect", "keep": 40, "within_layers": True}),
    "rome-prune": recipe("rome", {"layer": 1, "v_num_grad_steps": 2}, {"name": "prune", "log_base": 2.0}),
    "d4s-prune": recipe("d4s", MASS, {"name": "prune"}),
    "grace": recipe("grace", {"layer": 1, "n_iter": 2, "epsilon": 0.01}),
}
REPLACING = ("d4s", "d4s-rect", "rome-prune", "d4s-prune")


@pytest.fixture
def project(tmp_path, facts):
    return Project(tmp_path, facts)


@pytest.fixture
def moments(tmp_path):
    path = tmp_path / "moments-01-02.safetensors"
    write_moments({layer: Moment(second_moment(layer), 1000) for layer in (1, 2)}, path, "tiny")
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_links_equal_one_long_link(project, moments, name):
    """Stopping at checkpoints, with everything read back from files, changes no bit of weights or state."""
    own = RECIPES[name]
    for start, edits in ((0, 1), (1, 3), (3, 4)):
        project.link("links", start, edits, own, moments=moments)
    project.link("whole", 0, 4, own, moments=moments)
    live = []
    for folder in ("links", "whole"):
        model = load_model(project.model)
        apply_chain(model, making(project.deltas(folder)))
        live.append(model)
    for (parameter, left), (_, right) in zip(
        live[0].network.named_parameters(), live[1].network.named_parameters(), strict=True
    ):
        assert torch.equal(left, right), parameter
    states = [
        read_state(project.folder / folder / "0004/state.safetensors", 4, recipe_sha256(own))
        for folder in ("links", "whole")
    ]
    assert set(states[0]) == set(states[1])
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key]), key
    modes = {read_increment(path).metadata["mode"] for path in project.deltas("links")}
    assert modes == {"replacing" if name in REPLACING else "additive"}


def test_prune_restrains_the_checkpoint_and_not_the_editing(project, moments):
    """What is stored is W_0 + squeezed (W_n - W_0); the next link goes on from the raw W_n, as without PRUNE."""
    settings = {"layer": 1, "v_num_grad_steps": 4, "v_lr": 5.0, "clamp_norm_factor": 40.0}
    pruned_recipe = recipe("rome", settings, {"name": "prune", "log_base": 2.0})
    plain = recipe("rome", settings)
    for start, edits in ((0, 2), (2, 4)):
        project.link("pruned", start, edits, pruned_recipe)
        project.link("plain", start, edits, plain)
    base, raw, pruned = (load_model(project.model) for _ in range(3))
    apply_chain(raw, project.deltas("plain"))
    apply_chain(pruned, making(project.deltas("pruned")))
    name = base.down_name(1)
    state = read_state(project.folder / "pruned/0004/state.safetensors", 4, recipe_sha256(pruned_recipe))
    assert torch.equal(state[f"raw/{name}"], raw.network.get_parameter(name).data)
    w_0, w_n, w = (model.matrix(name).double() for model in (base, raw, pruned))
    left, values, right = torch.linalg.svd(w_n - w_0)
    bound = torch.linalg.svdvals(w_0)[0]
    assert values[0] > bound, "the case does not test what it should: nothing is large enough to squeeze"
    values = torch.where(values > bound, torch.log2(values) - torch.log2(bound) + bound, values)
    wanted = w_0 + left[:, : len(values)] * values @ right[: len(values)]
    assert torch.allclose(w, wanted, atol=1e-6 * float(wanted.abs().max()))


def test_within_layers_the_next_layer_sees_the_regularised_one(project, moments):
    """The first layer's update is the same either way; the second layer's is computed on another model."""
    after = recipe("memit", MASS, {"name": "rect", "keep": 40})
    project.link("after", 0, 1, after, moments=moments)
    project.link("within", 0, 1, RECIPES["memit-rect-within"], moments=moments)
    models = []
    for folder in ("after", "within"):
        models.append(load_model(project.model))
        apply_chain(models[-1], project.deltas(folder))
    first, second = (models[0].down_name(layer) for layer in (1, 2))
    assert torch.equal(models[0].matrix(first), models[1].matrix(first))
    assert not torch.equal(models[0].matrix(second), models[1].matrix(second))


@pytest.mark.parametrize("name", ["rome", "d4s"])
def test_an_unstable_edit_stops_or_is_skipped_and_recorded(project, moments, name):
    """A limit below every norm: with `skip` no weight and no state changes, and the record says why."""
    settings = {"layer": 1, "v_num_grad_steps": 2} if name == "rome" else MASS
    stop = recipe(name, settings, unstable={"action": "stop", "limit": 1e-9})
    with pytest.raises(
        UnstableEditError,
        match=r"edit 1 \(fact '.*'\): the norm of the update of .* is .*allowed ratio 1e-09",
    ):
        project.link("stop", 0, 2, stop, moments=moments)
    assert not project.deltas("stop")
    skip = recipe(name, settings, unstable={"action": "skip", "limit": 1e-9})
    delta = project.link("skip", 0, 2, skip, moments=moments)
    records = pl.read_parquet(delta.parent / "edits.parquet")
    assert records["status"].to_list() == ["skipped", "skipped"]
    assert all("allowed ratio" in reason for reason in records["reason"])
    assert records["update_norm"].null_count() == 2
    base, live = load_model(project.model), load_model(project.model)
    apply_chain(live, [delta])
    for (_, left), (_, right) in zip(
        base.network.named_parameters(), live.network.named_parameters(), strict=True
    ):
        assert torch.equal(left, right)
    state = read_state(delta.parent / "state.safetensors", 2, recipe_sha256(skip))
    assert state == {}
    assert pl.read_parquet(delta.parent / "after-edit.parquet").height > 0


def test_a_skipped_edit_leaves_the_earlier_ones_in_place(project, moments):
    """D4S after a good edit and a refused one still holds the good one: only the second is left out."""
    norms = pl.read_parquet(
        project.link("all", 0, 4, recipe("d4s", MASS), moments=moments).parent / "edits.parquet"
    )["update_norm"]
    assert norms[1] > norms[0] > 0, "the case does not test what it should: the history does not grow"
    whole = load_model(project.model)
    most = [0.0, 0.0]
    for edits in (1, 2):  # largest ratio of a matrix after one and after two edits
        model = load_model(project.model)
        apply_chain(model, [project.link(f"to-{edits}", 0, edits, recipe("d4s", MASS), moments=moments)])
        most[edits - 1] = max(
            float((model.matrix(n) - whole.matrix(n)).norm() / whole.matrix(n).norm())
            for n in (model.down_name(1), model.down_name(2))
        )
    limit = sum(most) / 2
    own = recipe("d4s", MASS, unstable={"action": "skip", "limit": limit})
    delta = project.link("some", 0, 2, own, moments=moments)
    status = pl.read_parquet(delta.parent / "edits.parquet")["status"].to_list()
    assert status == ["applied", "skipped"]
    live, one = load_model(project.model), load_model(project.model)
    apply_chain(live, [delta])
    apply_chain(one, project.deltas("to-1"))
    for name in (live.down_name(1), live.down_name(2)):
        assert torch.equal(live.matrix(name), one.matrix(name))


@pytest.mark.parametrize("name", ["rome", "d4s", "rome-prune", "d4s-prune"])
def test_a_link_whose_edits_are_all_skipped_stays_where_it_began(project, moments, name, monkeypatch):
    """Neither the weights of the checkpoint before nor the probes after an edit that is left out fall back to W_0."""
    own = {**RECIPES, "rome": recipe("rome", {"layer": 1, "v_num_grad_steps": 2})}[name]
    own = {**own, "unstable": {"action": "skip", "limit": 10.0}}
    project.link("some", 0, 2, own, moments=moments)

    def refuse(*_):
        raise UnstableEditError("refused by the test")

    operation = session._compute_operation
    monkeypatch.setattr(session, "_compute_operation", refuse)
    project.link("some", 2, 3, own, moments=moments)
    assert pl.read_parquet(project.folder / "some/0003/edits.parquet")["status"].to_list() == ["skipped"]
    monkeypatch.setattr(
        session, "_compute_operation", lambda *given: refuse() if given[2][0][0] == 3 else operation(*given)
    )
    project.link("whole", 0, 3, own, moments=moments)
    base, live, whole = (load_model(project.model) for _ in range(3))
    apply_chain(live, making(project.deltas("some")))
    apply_chain(whole, making(project.deltas("whole")))
    for (parameter, left), (_, right) in zip(
        live.network.named_parameters(), whole.network.named_parameters(), strict=True
    ):
        assert torch.equal(left, right), parameter
    assert not torch.equal(live.matrix(live.down_name(1)), base.matrix(base.down_name(1)))
    probes = pl.read_parquet(project.folder / "some/0003/after-edit.parquet")
    expected = pl.read_parquet(project.folder / "whole/0003/after-edit.parquet").filter(
        pl.col("position") == 3
    )
    assert_frame_equal(probes, expected)


def test_batches_are_one_operation_each(project, moments):
    """Six facts in batches of three: two operations, whose norms three records share, each with its own loss."""
    own = recipe("memit", MASS, batch_size=3)
    delta = project.link("batch", 0, 6, own, moments=moments)
    records = pl.read_parquet(delta.parent / "edits.parquet")
    assert records["update_norm"].n_unique() == 2
    assert records["loss"].n_unique() == 6


def test_no_reason_in_a_record_is_composed_in_a_raise():
    """The code fingerprint leaves out what stands in a `raise`, and `reason` is a result."""
    package = Path(session.__file__).parents[1]
    calls = [
        node.exc
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        if ast.unparse(node.exc.func) == "UnstableEditError"
    ]
    assert len(calls) >= 8
    assert {ast.unparse(call) for call in calls} == {"UnstableEditError(reason)"}


@pytest.mark.parametrize("name", ["d4s", "rome-prune"])
def test_a_history_against_the_unedited_model_is_weighed_by_its_steps(project, moments, tmp_path, name):
    """The last three files are enough for the cosine of the last two steps, and give what the live models say."""
    for start, edits in ((0, 1), (1, 2), (2, 3), (3, 4)):
        project.link(name, start, edits, RECIPES[name], moments=moments)
    settings = {"thresholds": [0.077], "quantiles": [0.5], "heatmap_blocks": 4}
    out = tmp_path / "w.parquet"
    weigh_checkpoint(project.model, project.deltas(name)[-3:], settings, out, tmp_path / "h.parquet")
    states = []
    for path in project.deltas(name)[-3:]:
        states.append(load_model(project.model))
        apply_chain(states[-1], [path])
    table = pl.read_parquet(out).filter(statistic="cosine_previous")
    assert len(table) == table["parameter"].n_unique() > 0
    for parameter, value in table.select("parameter", "value").iter_rows():
        first, second, third = (state.matrix(parameter).double().flatten() for state in states)
        wanted = torch.nn.functional.cosine_similarity(third - second, second - first, dim=0)
        assert value == pytest.approx(float(wanted), rel=1e-9)
