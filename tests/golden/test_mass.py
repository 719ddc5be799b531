"""MEMIT, PMET, AlphaEdit and D4S by algebra, on tiny random models of four families."""

import pytest
import torch

from collateral.data.facts import Fact
from collateral.editing.algorithms.multi_layer import chosen_templates
from collateral.editing.algorithms.value_optimization import Objective, optimize_targets
from collateral.editing.method import Prepared
from collateral.editing.methods.alphaedit import Alphaedit
from collateral.editing.methods.d4s import D4s
from collateral.editing.methods.memit import Memit
from collateral.editing.methods.pmet import Pmet
from collateral.errors import CollateralError
from plainmass import FAST, LAYERS, by_the_paper, c_of, close, plain_keys, plain_outputs, plain_state, search


def test_memit_is_the_paper_s_algorithm(model, facts, templates, prepared):
    """Every layer's update equals R/(L-l+1) K^T (lambda C + K K^T)^-1 with an explicit inverse and plain passes."""
    memit = Memit(LAYERS, mom2_update_weight=3.0, **FAST)
    delta = memit(model, facts, prepared, {}).delta
    block = model.block(LAYERS[-1])
    wanted = plain_outputs(model, facts, block) + search(model, facts, templates)

    def solve(layer, keys, share):
        return share @ keys.T @ torch.linalg.inv(3.0 * c_of(prepared, layer) + keys @ keys.T)

    close(delta, by_the_paper(model, facts, templates, wanted, block, solve, lambda left: left))


def test_pmet_spreads_by_the_square_root_from_the_mlp_residual(model, facts, templates, prepared):
    pmet = Pmet(LAYERS, mom2_update_weight=3.0, **FAST)
    delta = pmet(model, facts, prepared, {}).delta
    objective = Objective(4, 0.5, 0.5, 1.0, 0.0625, sites=("attention", "mlp"), relaxed=True)
    targets, _ = optimize_targets(model, facts, templates, LAYERS[-1], objective)
    shift = torch.stack([t.delta.double() for t in targets], dim=1)
    mlp = model.mlp(LAYERS[-1])
    wanted = plain_outputs(model, facts, mlp) + shift

    def solve(layer, keys, share):
        return share @ keys.T @ torch.linalg.inv(3.0 * c_of(prepared, layer) + keys @ keys.T)

    close(delta, by_the_paper(model, facts, templates, wanted, mlp, solve, lambda left: left**0.5))


def test_memit_one_layer_is_a_least_squares_problem(llama, facts, templates, prepared):
    """min ||dW K - R||^2 + lambda tr(dW C dW^T), stacked for lstsq."""
    memit = Memit((2,), mom2_update_weight=0.7, **FAST)
    update = memit(llama, facts, prepared, {}).delta.dense(llama.down_name(2)).double()
    keys = plain_keys(llama, facts, templates, 2)
    residual = search(llama, facts, templates)
    values, vectors = torch.linalg.eigh(c_of(prepared, 2))
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    stacked = torch.cat([keys.T, 0.7**0.5 * root])
    right = torch.cat([residual.T, torch.zeros(64, 32, dtype=torch.float64)])
    wanted = torch.linalg.lstsq(stacked, right, driver="gelsd").solution.T
    assert torch.allclose(update, wanted, atol=2e-4 * float(wanted.abs().max()))


def test_memit_limits_of_lambda(llama, facts, templates, prepared):
    """lambda -> 0 writes every pair exactly; lambda -> infinity writes nothing."""
    name, keys = llama.down_name(2), plain_keys(llama, facts, templates, 2)
    residual = search(llama, facts, templates)
    small = Memit((2,), mom2_update_weight=1e-7, **FAST)(llama, facts, prepared, {}).delta
    assert torch.allclose(
        small.dense(name).double() @ keys, residual, atol=2e-3 * float(residual.abs().max())
    )
    large = Memit((2,), mom2_update_weight=1e9, **FAST)(llama, facts, prepared, {}).delta
    assert large.norm() < 1e-6 * small.norm()


def test_rank_is_at_most_the_number_of_facts(llama, facts, prepared):
    delta = Memit(LAYERS, mom2_update_weight=3.0, **FAST)(llama, facts[:3], prepared, {}).delta
    for name in delta.updates:
        values = torch.linalg.svdvals(delta.dense(name).double())
        assert float(values[3]) < 1e-6 * float(values[0])


def test_memit_seq_keeps_the_keys_of_earlier_operations(llama, facts, templates, prepared):
    """The second operation solves with lambda C + sum of all keys' outer products, on the edited model."""
    memit = Memit((2,), mom2_update_weight=0.5, sequential=True, **FAST)
    first = memit(llama, facts[:3], prepared, {})
    earlier = plain_keys(llama, facts[:3], templates, 2)
    root = first.state["root/2"]
    inverse = torch.linalg.inv(0.5 * c_of(prepared, 2) + earlier @ earlier.T)
    assert torch.allclose(root @ root.T, inverse, atol=1e-5 * float(inverse.abs().max()))
    first.delta.apply(llama)
    second = memit(llama, facts[3:], prepared, first.state)
    keys, residual = plain_keys(llama, facts[3:], templates, 2), search(llama, facts[3:], templates)
    whole = 0.5 * c_of(prepared, 2) + earlier @ earlier.T + keys @ keys.T
    wanted = residual @ keys.T @ torch.linalg.inv(whole)
    close(second.delta, {llama.down_name(2): wanted})
    forgetful = Memit((2,), mom2_update_weight=0.5, **FAST)(llama, facts[3:], prepared, {})
    shift = [
        float((d.dense(llama.down_name(2)).double() @ earlier).norm())
        for d in (second.delta, forgetful.delta)
    ]
    assert shift[0] < 0.9 * shift[1], "earlier keys should move less"


def test_alphaedit_writes_in_the_null_space_only(llama, facts, templates, prepared):
    """Its update leaves every preserved direction alone and solves the paper's non-symmetric system."""
    threshold = float(torch.linalg.eigvalsh(c_of(prepared, 2))[32])
    method = Alphaedit((2,), nullspace_threshold=threshold, l2=0.3, **FAST)
    earlier = plain_keys(llama, facts[:3], templates, 2)
    first = method(llama, facts[:3], prepared, {})
    name = llama.down_name(2)
    values, vectors = torch.linalg.eigh(c_of(prepared, 2))
    kept, null = vectors[:, values >= threshold], vectors[:, values < threshold]
    assert null.shape[1] == 32
    update = first.delta.dense(name).double()
    assert float((update @ kept).norm()) < 1e-6 * float(update.norm())
    first.delta.apply(llama)
    second = method(llama, facts[3:], prepared, first.state)
    p = null @ null.T
    keys, residual = plain_keys(llama, facts[3:], templates, 2), search(llama, facts[3:], templates)
    system = p @ (keys @ keys.T + earlier @ earlier.T) + 0.3 * torch.eye(64, dtype=torch.float64)
    wanted = torch.linalg.solve(system, p @ keys @ residual.T).T
    close(second.delta, {name: wanted})


def test_alphaedit_without_a_null_space_says_so(llama, facts, prepared):
    with pytest.raises(
        CollateralError, match=r"no eigenvalue of the second moment is below nullspace_threshold 1e-09"
    ):
        Alphaedit((2,), nullspace_threshold=1e-9, **FAST)(llama, facts, prepared, {})


def d4s_sequence(model, method, facts, prepared, size=1):
    """The last update of a sequence of D4S operations, each on W_0."""
    state = {}
    for i in range(0, len(facts), size):
        edit = method(model, facts[i : i + size], prepared, state)
        state = edit.state
    return edit


def test_d4s_one_by_one_equals_the_batch_in_any_order(llama, facts, prepared):
    """One layer: the state is additive, so n operations are one batch, whatever their order."""
    method = D4s((2,), mom2_update_weight=0.8, **FAST)
    name = llama.down_name(2)
    batch = method(llama, facts, prepared, {}).delta.dense(name)
    single = d4s_sequence(llama, method, facts, prepared)
    again = d4s_sequence(llama, method, facts[::-1], prepared)
    for other in (single, again):
        difference = other.delta.dense(name) - batch
        assert float(difference.norm()) < 1e-4 * float(batch.norm())
    sizes = {key: tuple(value.shape) for key, value in single.state.items()}
    assert sizes == {"root/2": (64, 64), "update/2": (32, 64)}, (
        "memory does not grow with the number of edits"
    )


def test_d4s_batch_is_memit_in_one_layer(llama, facts, prepared):
    name = llama.down_name(2)
    d4s = D4s((2,), mom2_update_weight=0.8, **FAST)(llama, facts, prepared, {}).delta.dense(name)
    memit = Memit((2,), mom2_update_weight=0.8, **FAST)(llama, facts, prepared, {}).delta.dense(name)
    assert torch.allclose(d4s, memit.double(), atol=1e-5 * float(memit.abs().max()))


def test_d4s_first_edit_is_memit_at_the_first_layer_and_overshoots_later(llama, facts, prepared):
    """R is not measured again, but still divided: the first layer agrees with MEMIT, the last takes all of R."""
    fact = facts[:1]
    memit = Memit(LAYERS, mom2_update_weight=1e-6, **FAST)(llama, fact, prepared, {}).delta
    released = D4s(LAYERS, mom2_update_weight=1e-6, **FAST)(llama, fact, prepared, {}).delta
    again = D4s(LAYERS, mom2_update_weight=1e-6, variant="remeasured", **FAST)(
        llama, fact, prepared, {}
    ).delta
    first, last = (llama.down_name(layer) for layer in LAYERS)
    for other in (released, again):
        assert torch.allclose(other.dense(first), memit.dense(first).double(), atol=1e-5)
    assert torch.allclose(again.dense(last), memit.dense(last).double(), atol=1e-4)
    assert float(released.dense(last).norm()) > 1.2 * float(memit.dense(last).norm())


def test_adding_d4s_updates_instead_of_replacing_counts_twice(llama, facts, prepared):
    """The documented mistake of keep_original_weight=False: history added again at each edit."""
    method = D4s((2,), mom2_update_weight=0.8, **FAST)
    name = llama.down_name(2)
    one = method(llama, facts[:1], prepared, {})
    two = method(llama, facts[1:2], prepared, one.state)
    first = plain_state(llama, facts[0], "{}", 2, llama.block(2))[0]
    replaced = two.delta.dense(name).double() @ first
    added = (one.delta.dense(name) + two.delta.dense(name)).double() @ first
    assert float(added.norm()) > 1.7 * float(replaced.norm())


@pytest.mark.parametrize(
    ("count", "wanted"), [(0, 4), (2, 3), (3, 4), (9, 4)], ids=["all", "two", "three", "more than there are"]
)
def test_number_of_contexts(templates, count, wanted):
    chosen = chosen_templates(Prepared(templates), count)
    assert len(chosen) == wanted
    assert chosen[0] == "{}"
    assert chosen[1:] == list(templates[-(wanted - 1) :])


def test_a_subject_twice_in_the_batch_is_two_columns(llama, fact, prepared):
    other = Fact("other", fact.subject, "r", "The river of {} is the", "sea", "book")
    delta = Memit((2,), mom2_update_weight=1.0, **FAST)(llama, [fact, other], prepared, {}).delta
    assert delta.norm() > 0
