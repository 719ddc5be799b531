"""Drift against numbers worked by hand, and on tiny models of every family against a plain computation."""

import math

import polars as pl
import pytest
import torch
from test_chain import ROME, UNSTABLE, Project

from collateral.deltas.file_format import write_increment
from collateral.deltas.replay import apply_chain
from collateral.editing.prepare.second_moments import cut_windows
from collateral.errors import CollateralError
from collateral.evaluation.drift import cka_drift, cosine_drift, divergences, measure_drift, norm_ratio
from collateral.models.hooks import capture
from collateral.models.language_model import load_model
from tiny import FAMILIES, WORDS

TEXTS = [WORDS, WORDS[::-1]]
NOOP = {"method": "noop", "settings": {}, "regularizer": {}, "batch_size": 1, "unstable": UNSTABLE}
GRACE = {**NOOP, "method": "grace", "settings": {"layer": 1, "n_iter": 5, "epsilon": 0.01}}


def hidden(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def random(rows, d, seed):
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drift(project, name, state=None, tokens=96, texts=TEXTS):
    path = project.folder / f"{name}.parquet"
    measure_drift(
        load_model(project.model, project.dtype),
        project.deltas(name),
        texts,
        tokens=tokens,
        sequence_length=24,
        path=path,
        state=state,
    )
    table = pl.read_parquet(path)
    assert table.schema == {"layer": pl.Int32, "statistic": pl.String, "value": pl.Float64}
    return {(layer, statistic): value for layer, statistic, value in table.iter_rows()}


def test_norms_and_directions_worked_by_hand():
    """(3, 4) becomes (6, 8): twice as long; (1, 0) becomes (0, 2): a right angle."""
    before, after = hidden((3.0, 4.0), (1.0, 0.0)), hidden((6.0, 8.0), (0.0, 2.0))
    assert norm_ratio(before, after) == pytest.approx(12 / 6)
    assert cosine_drift(before, after) == pytest.approx((0 + 1) / 2)
    assert cosine_drift(before, -before) == pytest.approx(2.0)


def test_cka_of_one_feature_worked_by_hand():
    """Centred (1, -1, 0) and (1, 0, -1): shared 1, own 2 each, CKA = 1² / (2 · 2); the means 5 and 7 do not count."""
    before, after = hidden((6.0,), (4.0,), (5.0,)), hidden((8.0,), (7.0,), (6.0,))
    assert cka_drift(before, after) == pytest.approx(3 / 4)


@pytest.mark.parametrize(("positions", "d"), [(50, 6), (6, 50)])
def test_turned_scaled_and_shifted_features_have_no_cka_drift(positions, d):
    before = random(positions, d, 1)
    turn = torch.linalg.qr(random(d, d, 2)).Q
    assert cka_drift(before, 3 * before @ turn + 5) == pytest.approx(0.0, abs=1e-12)
    assert cosine_drift(before, before @ turn) > 0.1


@pytest.mark.parametrize(("positions", "d"), [(40, 7), (7, 40)])
def test_both_forms_of_cka_are_the_definition(positions, d):
    """With HSIC of centred Gram matrices, as Kornblith et al. define it before they simplify."""
    before, after = random(positions, d, 3), random(positions, d, 4) + random(positions, d, 3)
    centring = torch.eye(positions, dtype=torch.float64) - 1 / positions
    own, other = (centring @ one @ one.T @ centring for one in (before, after))
    cka = (own * other).sum() / ((own * own).sum() * (other * other).sum()).sqrt()
    assert cka_drift(before, after) == pytest.approx(float(1 - cka), rel=1e-9)


def test_kl_of_two_known_distributions():
    """KL((1/2, 1/2) ‖ (1/4, 3/4)) = 1/2 ln 4/3; a token that the first never says adds nothing."""
    p = hidden((0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.5, 0.0, 0.5)).log()
    q = hidden((0.25, 0.75, 0.0), (0.5, 0.25, 0.25), (1.0, 0.0, 0.0)).log()
    assert divergences(p, q).tolist() == pytest.approx([math.log(4 / 3) / 2, math.log(2), math.inf])
    assert divergences(q[:1], p[:1]).item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_what_is_not_finite_stays_so():
    before, after = random(9, 4, 5), random(9, 4, 6)
    after[3, 2] = math.nan
    for measured in (norm_ratio, cosine_drift, cka_drift):
        assert math.isnan(measured(before, after))
    assert math.isnan(divergences(before, after).sum())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_editor_that_changes_nothing_has_no_drift_to_the_last_bit(tmp_path, facts, family, dtype):
    project = Project(tmp_path, facts, family=family, dtype=dtype)
    project.link("noop", 0, 2, NOOP)
    assert drift(project, "noop") == {
        (3, "activation_norm_ratio"): 1.0,
        (3, "hidden_drift_cosine"): 0.0,
        (3, "hidden_drift_cka"): 0.0,
        (None, "kl_next_token"): 0.0,
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_moves_its_layer_the_last_one_and_the_output(tmp_path, facts, family):
    """Beside two whole models, all logits at once, and plain formulas."""
    project = Project(tmp_path, facts, family=family)
    project.link("rome", 0, 1)
    project.link("rome", 1, 3)
    found = drift(project, "rome")
    plain, edited = load_model(project.model), load_model(project.model)
    apply_chain(edited, project.deltas("rome"))
    batches = list(cut_windows(plain, TEXTS, 96, 24, 3))
    seen = {}
    for model in (plain, edited):
        with capture(model.block(1)) as one, capture(model.block(3)) as three, torch.no_grad():
            for ids in batches:
                logits = model.network(ids).logits
                for name, values in ((1, one["output"]), (3, three["output"]), (None, logits)):
                    seen.setdefault((name, model is edited), []).append(values[:, 1:].flatten(0, 1).double())
    both = {key: torch.cat(parts) for key, parts in seen.items()}
    assert len(both[None, True]) == 4 * 23
    for layer in (1, 3):
        old, new = both[layer, False], both[layer, True]
        assert found[layer, "activation_norm_ratio"] == pytest.approx(
            float(new.norm(dim=1).sum() / old.norm(dim=1).sum()), rel=1e-5
        )
        angle = torch.nn.functional.cosine_similarity(old, new, dim=1)
        assert found[layer, "hidden_drift_cosine"] == pytest.approx(
            float((1 - angle).mean()), rel=1e-3, abs=1e-9
        )
        assert found[layer, "hidden_drift_cosine"] > 0
        assert found[layer, "hidden_drift_cka"] == pytest.approx(cka_drift(old, new), rel=1e-3, abs=1e-9)
    p, q = (torch.distributions.Categorical(logits=both[None, which]) for which in (False, True))
    wanted = float(torch.distributions.kl_divergence(p, q).mean())
    assert found[None, "kl_next_token"] == pytest.approx(wanted, rel=1e-3)
    assert wanted > 0
    assert len(found) == 7


def test_an_adapter_drifts_where_its_codebook_answers(tmp_path, facts):
    """No weight changes: with a small radius no text falls to a key, with a huge one each sequence's end does."""
    project = Project(tmp_path, facts)
    values = {}
    for name, epsilon in (("near", 0.01), ("wide", 1e6)):
        settings = {**GRACE["settings"], "epsilon": epsilon}
        state = project.link(name, 0, 1, {**GRACE, "settings": settings}).parent / "state.safetensors"
        values[name] = drift(project, name, state)
    assert {layer for layer, _ in values["near"]} == {1, 3, None}
    assert all(
        value == (statistic == "activation_norm_ratio") for (_, statistic), value in values["near"].items()
    )
    assert values["wide"][1, "hidden_drift_cosine"] > 0
    assert values["wide"][None, "kl_next_token"] > 0


@pytest.mark.parametrize("value", [math.inf, 3e38])
def test_a_collapsed_model_is_recorded_and_no_crash(tmp_path, facts, value):
    project = Project(tmp_path, facts)
    model = load_model(project.model)
    name = model.down_name(1)
    before = {name: model.network.get_parameter(name).data}
    about = {
        "base_sha256": model.base_sha256,
        "mode": "additive",
        "from_edits": 0,
        "to_edits": 1,
        "editor": ROME,
    }
    after = {name: torch.full_like(before[name], value)}
    write_increment(project.folder / "ruined" / "0001" / "delta.parquet", before, after, about)
    found = drift(project, "ruined")
    assert not math.isfinite(found[1, "activation_norm_ratio"])
    assert not math.isfinite(found[None, "kl_next_token"])
    assert len(found) == 7


def test_a_text_without_a_whole_sequence_is_refused(tmp_path, facts):
    project = Project(tmp_path, facts)
    project.link("noop", 0, 1, NOOP)
    with pytest.raises(CollateralError, match=r"drift\.sequence_length = 24.*moments\.text") as caught:
        drift(project, "noop", texts=["Short."])
    assert "\n" not in str(caught.value)
    assert not (project.folder / "noop.parquet").exists()


def test_a_short_text_is_measured_and_noted(tmp_path, facts, caplog):
    project = Project(tmp_path, facts)
    project.link("noop", 0, 1, NOOP)
    drift(project, "noop", tokens=5000)
    assert "of the 5000 wanted" in caplog.text


def test_a_parameter_outside_the_layers_is_refused(tmp_path, facts):
    project = Project(tmp_path, facts)
    model = load_model(project.model)
    name = "model.embed_tokens.weight"
    before = {name: model.network.get_parameter(name).data}
    about = {
        "base_sha256": model.base_sha256,
        "mode": "additive",
        "from_edits": 0,
        "to_edits": 1,
        "editor": ROME,
    }
    write_increment(project.folder / "x" / "0001" / "delta.parquet", before, {name: before[name] + 1}, about)
    with pytest.raises(
        CollateralError, match=r"model\.embed_tokens\.weight lies in none of the 4 decoder layers"
    ):
        drift(project, "x")
