"""EMMET by algebra: exact constraints of least C-norm, and ROME where they must agree."""

import torch

from collateral.editing.method import Prepared
from collateral.editing.methods.emmet import Emmet
from collateral.editing.methods.rome import Rome
from plainmass import FAST, STEPS, c_of, plain_keys, plain_state, search


def test_emmet_maps_every_key_exactly(llama, facts, templates, prepared):
    delta = Emmet((2,), **FAST)(llama, facts, prepared, {}).delta
    keys, residual = plain_keys(llama, facts, templates, 2), search(llama, facts, templates)
    update = delta.dense(llama.down_name(2)).double()
    assert torch.allclose(update @ keys, residual, atol=1e-3 * float(residual.abs().max()))
    # least C-norm: stationarity of tr(dW C dW^T) under dW K = R means that dW C lies in the span of the keys
    beyond = torch.linalg.qr(keys, mode="complete").Q[:, keys.shape[1] :]
    assert float((update @ c_of(prepared, 2) @ beyond).norm()) < 1e-4 * float(
        (update @ c_of(prepared, 2)).norm()
    )


def test_emmet_with_one_fact_and_context_is_rome(llama, fact, prepared):
    """Same key, same shift, same C: the two closed forms agree."""
    alone = Prepared(("{}",), moments=prepared.moments)
    emmet = Emmet((2,), clamp_norm_factor=4.0, **FAST)
    update = emmet(llama, [fact], alone, {}).delta.dense(llama.down_name(2)).double()
    rome = Rome(2, clamp_norm_factor=4.0, mom2_adjustment=True, **STEPS)
    other = rome(llama, [fact], alone, {}).delta.dense(llama.down_name(2)).double()
    row, direction = torch.linalg.svd(update).Vh[0], torch.linalg.svd(other).Vh[0]
    assert abs(float(row @ direction)) > 1 - 1e-8
    key = plain_keys_bare(llama, fact)
    # the shifts come from two optimisations (block and MLP output), the maps from key to shift must not differ
    for found in (update, other):
        moved = found @ key
        rank_one = torch.outer(moved, torch.linalg.solve(c_of(prepared, 2), key))
        rank_one /= torch.linalg.solve(c_of(prepared, 2), key) @ key
        assert torch.allclose(found, rank_one, atol=1e-5 * float(found.abs().max()))


def plain_keys_bare(model, fact):
    return plain_state(model, fact, "{}", 2, model.block(2))[0]


def test_emmet_lambda_damps(llama, facts, prepared):
    exact = Emmet((2,), **FAST)(llama, facts, prepared, {}).delta.norm()
    damped = Emmet((2,), emmet_lambda=1.0, **FAST)(llama, facts, prepared, {}).delta.norm()
    assert damped < exact
