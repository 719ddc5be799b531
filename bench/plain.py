"""The editors written plainly: full forward passes for everything. What the package's versions are timed against."""

import torch

from collateral.deltas.update import restore, snapshot
from collateral.editing.algorithms.value_optimization import ESSENCE, Objective
from collateral.editing.method import Prepared
from collateral.editing.methods.memit import Memit
from collateral.models.hooks import capture, get_hidden
from collateral.models.language_model import LanguageModel
from collateral.models.tokenization import fill_id, pad, tokenize


def plain_target(model: LanguageModel, fact, templates, layer: int, objective: Objective) -> torch.Tensor:
    """The same optimisation with a full forward pass over all tokens, layers and logits at each step."""
    rows = [tokenize(model.tokenizer, fact.text(t), fact.target_new, fact.subject_span(t)) for t in templates]
    essence = tokenize(model.tokenizer, ESSENCE.replace("{}", fact.subject), subject=(0, len(fact.subject)))
    texts = [row.ids[:-1] for row in rows] + [essence.ids]
    batch = pad(texts, [0] * len(texts), fill_id(model.tokenizer), model.device)
    every = torch.arange(len(texts))
    where = torch.tensor([row.subject_last for row in (*rows, essence)])
    site = model.mlp(layer) if objective.sites == ("mlp",) else model.block(layer)
    seen: dict[str, torch.Tensor] = {}
    delta: torch.Tensor | None = None

    def shift(_, __, output):
        nonlocal delta
        hidden = get_hidden(output)
        if delta is None:
            seen["h_0"] = hidden[0, where[0]].detach()
            delta = torch.zeros_like(seen["h_0"], requires_grad=True)
        moved = hidden.clone()
        moved[every, where] = moved[every, where] + delta
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    first, optimizer = None, None
    handle = site.register_forward_hook(shift)
    for step in range(objective.steps):
        logits = model.network(input_ids=batch.ids, attention_mask=batch.mask).logits
        log_p = logits.log_softmax(-1)
        nll = sum(
            -log_p[i, row.prompt_length - 1 + j, token] / (len(row.target) * len(rows))
            for i, row in enumerate(rows)
            for j, token in enumerate(row.target)
        )
        now = log_p[-1, essence.subject_last]
        first = now.detach() if first is None else first
        drift = torch.nn.functional.kl_div(first, now, log_target=True, reduction="sum")
        h_0 = seen["h_0"]
        loss = nll + objective.kl_factor * drift + objective.weight_decay * delta.norm() / h_0.norm() ** 2
        if float(loss.detach()) < objective.stop_loss or step == objective.steps - 1:
            break
        optimizer = optimizer or torch.optim.Adam([delta], lr=objective.learning_rate)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            delta *= (objective.clamp_factor * h_0.norm() / delta.norm()).clamp_max(1.0)
    handle.remove()
    return delta.detach()


def plain_memit(
    model: LanguageModel, facts, templates, memit: Memit, prepared: Prepared
) -> dict[str, torch.Tensor]:
    """MEMIT as usually written: targets fact by fact, then keys and residuals by whole passes at each layer."""
    objective = Objective(
        memit.v_num_grad_steps,
        memit.v_lr,
        memit.v_weight_decay,
        memit.clamp_norm_factor,
        memit.kl_factor,
        sites=("block",),
    )
    last = memit.layers[-1]
    shifts = [plain_target(model, fact, templates, last, objective) for fact in facts]
    wanted = torch.stack(
        [plain_output(model, fact, last) + s for fact, s in zip(facts, shifts, strict=True)], 1
    )
    saved = snapshot(model, memit.parameters(model))
    updates: dict[str, torch.Tensor] = {}
    for i, layer in enumerate(memit.layers):
        keys = torch.stack([plain_key(model, fact, templates, layer) for fact in facts], dim=1).double()
        now = torch.stack([plain_output(model, fact, last) for fact in facts], dim=1)
        share = (wanted - now).double() / (len(memit.layers) - i)
        system = memit.mom2_update_weight * prepared.moment(layer).matrix + keys @ keys.T
        name = model.down_name(layer)
        updates[name] = share @ torch.linalg.solve(system, keys).T
        matrix = model.matrix(name)
        matrix.copy_((matrix.double() + updates[name]).float())
    restore(model, saved)
    return updates


def plain_key(model: LanguageModel, fact, templates, layer: int) -> torch.Tensor:
    """The fact's key: one half the bare prompt's, one half the mean of the contexts'."""
    rows = [tokenize(model.tokenizer, fact.text(t), "", fact.subject_span(t)) for t in templates]
    batch = pad([row.ids for row in rows], [0] * len(rows), fill_id(model.tokenizer), model.device)
    with torch.no_grad(), capture(model.down(layer)) as seen:
        model.network(input_ids=batch.ids, attention_mask=batch.mask)
    bare, *others = (seen["input"][i, row.subject_last] for i, row in enumerate(rows))
    return 0.5 * bare + 0.5 * torch.stack(others).mean(0)


def plain_output(model: LanguageModel, fact, layer: int) -> torch.Tensor:
    """The block's output at the subject of the bare prompt."""
    row = tokenize(model.tokenizer, fact.text(), "", fact.subject_span())
    with torch.no_grad(), capture(model.block(layer)) as seen:
        model.network(input_ids=torch.tensor([row.ids]))
    return seen["output"][0, row.subject_last]


def plain_kn(model: LanguageModel, texts: list[tuple[tuple[int, ...], int]], steps: int) -> torch.Tensor:
    """Return attributions, layers x d_in: for each layer and point, one pass over the whole text with all logits.

    Args:
        model: the model.
        texts: (text, next token) of each token of the answer.
        steps: points of the integral.
    """
    total = None
    for ids, token in texts:
        text = torch.tensor([ids], device=model.device)
        layers = [_one_layer(model, text, token, steps, layer) for layer in range(model.layers)]
        total = torch.stack(layers) if total is None else total + torch.stack(layers)
    return total / len(texts)


def _one_layer(model, text, token, steps, layer):
    held = {}

    def keep(_, args):
        held["a"] = args[0][0, -1].detach().clone()

    handle = model.down(layer).register_forward_pre_hook(keep)
    with torch.no_grad():
        model.network(input_ids=text)
    handle.remove()
    gradient = torch.zeros_like(held["a"])
    for k in range(1, steps + 1):
        scaled = (held["a"] * (k / steps)).requires_grad_()

        def put(_, args, scaled=scaled):
            changed = args[0].clone()
            changed[0, -1] = scaled
            return (changed,)

        handle = model.down(layer).register_forward_pre_hook(put)
        p = model.network(input_ids=text).logits[0, -1].softmax(-1)[token]
        handle.remove()
        gradient += torch.autograd.grad(p, scaled)[0]
    return held["a"] * gradient / steps
