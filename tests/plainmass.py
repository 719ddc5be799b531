"""Keys, residuals and MEMIT's loop over layers by plain unpadded passes and explicit float64 algebra."""

import torch

from collateral.deltas.update import restore, snapshot
from collateral.editing.algorithms.value_optimization import Objective, optimize_targets
from collateral.editing.method import Prepared
from collateral.models.hooks import capture
from collateral.models.tokenization import tokenize

LAYERS = (1, 2)
STEPS = {"v_num_grad_steps": 4}
FAST = {**STEPS, "context_samples": 0}


def second_moment(seed: int, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, 2 * size, generator=generator, dtype=torch.float64)
    return root @ root.T / (2 * size)


def c_of(prepared: Prepared, layer: int) -> torch.Tensor:
    return prepared.moment(layer).matrix


def plain_state(model, fact, template, layer, module):
    """Key at a layer and a module's output at the subject, by one plain unpadded forward pass."""
    row = tokenize(model.tokenizer, fact.text(template), "", fact.subject_span(template))
    with torch.no_grad(), capture(model.down(layer)) as down, capture(module) as seen:
        model.network(torch.tensor([row.ids]))
    return down["input"][0, row.subject_last].double(), seen["output"][0, row.subject_last].double()


def plain_keys(model, facts, templates, layer):
    """Bare prompt one half, the other templates together the other half (MEMIT's two groups)."""
    columns = []
    for fact in facts:
        bare, *others = (plain_state(model, fact, t, layer, model.block(layer))[0] for t in templates)
        columns.append(0.5 * bare + 0.5 * torch.stack(others).mean(0))
    return torch.stack(columns, dim=1)


def plain_outputs(model, facts, module):
    return torch.stack([plain_state(model, f, "{}", 0, module)[1] for f in facts], dim=1)


def search(model, facts, templates, site="block", clamp=0.75):
    """The targets of a batch, from the optimisation alone (its own test is test_targets.py)."""
    objective = Objective(4, 0.5, 0.5, clamp, 0.0625, sites=(site,))
    targets, _ = optimize_targets(model, facts, templates, LAYERS[-1], objective)
    return torch.stack([t.delta.double() for t in targets], dim=1)


def by_the_paper(model, facts, templates, wanted, module, solve, share):
    """Algorithm 1 of MEMIT with plain passes: each layer from scratch, explicit float64 algebra."""
    saved = snapshot(model, tuple(model.down_name(layer) for layer in LAYERS))
    updates = {}
    for i, layer in enumerate(LAYERS):
        keys = plain_keys(model, facts, templates, layer)
        residual = wanted - plain_outputs(model, facts, module)
        updates[model.down_name(layer)] = solve(layer, keys, residual / share(len(LAYERS) - i))
        matrix = model.matrix(model.down_name(layer))
        matrix.copy_((matrix.double() + updates[model.down_name(layer)]).to(matrix.dtype))
    restore(model, saved)
    return updates


def close(delta, updates, tolerance=2e-4):
    for name, wanted in updates.items():
        assert float((delta.dense(name).double() - wanted).norm()) <= tolerance * float(wanted.norm()), name
    assert set(delta.updates) == set(updates)
