"""GRACE: a codebook of activations in place of changed weights (Hartvigsen et al. 2023, arXiv 2211.11031)."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from collateral.data.facts import Fact
from collateral.deltas.update import Delta
from collateral.editing.algorithms.codebook import Codebook, consult, replace_tokens, replaced_tokens
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared, UnstableEditError
from collateral.editing.ranges import Above, AtLeast
from collateral.models.hooks import capture
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import ResumedRows, log_probabilities
from collateral.models.tokenization import Row, tokenize


@dataclass(frozen=True)
class Grace:
    """Store where a prompt ends in the layer's input, and what to put out there instead.

        h: input of the wrapped module at the prompt's last token       i* = argmin_i ||h - k_i||      (section 3.1)
        output(h) = v_i*  if ||h - k_i*|| <= ε_i*,  else the module's own                               (section 3.1)
        add, expand or split entries: `Codebook.prepared`                                               (Algorithm 1)
        v* = argmin_v -1/|t| sum_j log p_v(t_j | prompt, t_<j)          Adam from uniform numbers       (section 3.2)

    Nothing else changes: an input that no key is near to gets the unedited model's bits.

    Attributes:
        layer: decoder layer whose module is wrapped (0 is the first).
        site: the module: the MLP's down projection, its first input projection, or the whole decoder block.
        epsilon: radius of a new key, a Euclidean distance of the module's inputs.
        n_iter: updates of the value.
        edit_lr: Adam's learning rate.
        replacement: tokens whose output is the value: the prompt's last, the whole prompt, or the text after it too.
        variant: a fact that falls to an entry with its own label only widens it (paper), or its value is learnt on
            for this fact too (released).
    """

    layer: Annotated[int, AtLeast(0)]
    site: Literal["down", "input", "block"] = "down"
    epsilon: Annotated[float, Above(0)] = 1.0
    n_iter: Annotated[int, Above(0)] = 100
    edit_lr: Annotated[float, Above(0)] = 1.0
    replacement: Literal["last", "prompt", "all"] = "last"
    variant: Literal["paper", "released"] = "paper"

    batches: ClassVar[bool] = False
    adapter: ClassVar[bool] = True
    cost: ClassVar[Cost] = {"steps": "n_iter", "changes": "nothing"}

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return no parameter, after checking the layer number."""
        model.down_name(self.layer)
        return ()

    def wrapped(self, model: LanguageModel) -> nn.Module:
        """Return the module whose output is replaced."""
        paths = model.architecture
        path = {"down": paths.down, "input": paths.inputs[0], "block": paths.block}[self.site]
        return model.module(path.format(self.layer))

    def __call__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        prepared: Prepared,
        state: Mapping[str, Tensor],
    ) -> Edit:
        """Return no update and the codebook with one more fact; the model is left as it was."""
        (fact,) = facts
        self.parameters(model)
        # DIFFERS: the released code compares the means of label ids, puts new labels first and new keys last, and
        # finds the prompt's end by the last generation; here labels are token sequences beside their keys.
        run = _EditRun(model, tokenize(model.tokenizer, fact.text(), fact.target_new), self)
        place = run.query.device
        book = Codebook.of(state, place) if state else Codebook.empty(*run.size, place)
        book, entry, new = book.prepared(run.query, run.row.target, self.epsilon)
        value = book.values[entry]
        if new:
            generator = torch.Generator().manual_seed(prepared.seed)
            value = torch.rand(len(value), generator=generator).to(place)
        # ASSUME: the paper says of the expanded entry only that its radius grows, as its value has this label.
        steps = self.n_iter if new or self.variant == "released" else 0
        value, loss = run.learn(value, steps, self.edit_lr, fact)
        record = {"loss": loss, "steps": float(steps)}
        return Edit(Delta(), book.learnt(entry, value).state(), record)

    def attach(self, model: LanguageModel, state: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Return a context within which the model answers as edited."""
        if not state:
            return nullcontext()
        module = self.wrapped(model)
        book = Codebook.of(state, next(module.parameters()).device)
        return consult(model, module, book, self.replacement)


class _EditRun:
    """Prompt and target of one fact, run once; what no value can change is kept.

    A value at layer L changes nothing below L, and nothing before the first token that it replaces.

    Attributes:
        row: prompt and target as tokens.
        query: input of the wrapped module at the prompt's last token.
        size: lengths of a query and of a value.
    """

    def __init__(self, model: LanguageModel, row: Row, settings: Grace):
        self._model, self.row = model, row
        self._module = settings.wrapped(model)
        last = row.prompt_length - 1
        start = last if settings.replacement == "last" else 0
        ids = row.ids[:-1]
        with capture(self._module) as wrapped:
            self._rows = ResumedRows(model, [ids], [start], settings.layer - 1, settings.layer, {})
        place = wrapped["output"].device  # a layer's input may come from another GPU
        self.query: Tensor = wrapped["input"][0, last].float().to(place)
        self.size = (len(self.query), wrapped["output"].shape[-1])
        self._end = torch.tensor([last - start], device=place)
        self._where = replaced_tokens(settings.replacement, self._end, len(ids) - start)

    def _log_p(self, value: Tensor) -> Tensor:
        """Return log p(t_j | prompt, t_<j) of every target token when the value stands in."""
        handle = self._module.register_forward_hook(
            lambda _, __, output: replace_tokens(output, self._where, value[None])
        )
        try:
            final = self._rows.final(self._rows.hidden)
        finally:
            handle.remove()
        column = self._end + torch.arange(len(self.row.target), device=value.device)
        log_p = log_probabilities(self._model, final, torch.zeros_like(column), column)
        target = torch.tensor(self.row.target, device=log_p.device)
        return log_p.gather(1, target[:, None])[:, 0]

    def learn(self, value: Tensor, steps: int, rate: float, fact: Fact) -> tuple[Tensor, float]:
        """Return the value after so many updates, and its loss.

        Raises:
            UnstableEditError: the loss is not finite.
        """
        value = value.clone().requires_grad_()
        optimizer = torch.optim.Adam([value], lr=rate)
        for step in range(steps + 1):
            with torch.set_grad_enabled(step < steps):
                loss = -self._log_p(value).mean()
            if not torch.isfinite(loss):
                reason = (
                    f"fact '{fact.fact_id}': the loss of the value is {float(loss.detach())} at step {step}; lower "
                    "edit_lr, or evaluate an earlier checkpoint"
                )
                raise UnstableEditError(reason)
            if step < steps:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return value.detach(), float(loss)


METHOD = Grace
