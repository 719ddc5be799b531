"""FT: fine-tuning of one down projection, constrained or not (Zhu et al. 2020, arXiv 2012.00363)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Delta
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared, UnstableEditError
from collateral.editing.ranges import Above, AtLeast
from collateral.models.hooks import capture
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import ResumedRows, log_probabilities
from collateral.models.tokenization import tokenize

STOP_LOSS = 1e-2  # nats: a batch below it is left out, and a mean below it ends the training


@dataclass(frozen=True)
class Ft:
    """Train one MLP down projection on the edited facts, as the ROME paper's baselines FT and FT+L do.

        min_ΔW  mean over facts of  -1/|t| sum_j log p(t_j | prompt, t_<j)     (ROME, appendix E.1)
        with    max |ΔW_ij| <= norm_constraint                                 (Zhu et al., in the L-inf norm)

    by Adam, new for each edit, with projection onto the box after each step. The box is centred on the weights
    at the start of this edit, so in a sequence it moves along. It holds for the weights as they are stored:
    |round(W + ΔW) - W| <= norm_constraint exactly, whatever the dtype.

    Attributes:
        layer: decoder layer whose down projection is trained (0 is the first).
        objective: `target_new`, the likelihood above (EasyEdit's FT-M); `prompt_last`, where all target tokens are
            predicted from the prompt's last token (FT-L): -1/|t| sum_j log p(t_j | prompt).
        lr: Adam's learning rate.
        num_steps: passes over the facts.
        norm_constraint: half the width of the box, as an absolute number; None trains without it.
        minibatch: facts of one step.
        biases: also train the bias of that projection, in the families that have one.
    """

    # DIFFERS: the code released with ROME, and EasyEdit's default, is `prompt_last`: for a target of several tokens
    # it teaches a bag of tokens at one place. EasyEdit's FT in published tables (RECT, D4S) is that one.
    # DIFFERS: the released code trains the bias too in GPT-2 and GPT-J, by matching names; `biases: true` does that.

    layer: Annotated[int, AtLeast(0)]
    objective: Literal["target_new", "prompt_last"] = "target_new"
    lr: Annotated[float, Above(0)] = 0.0005
    num_steps: Annotated[int, Above(0)] = 25
    norm_constraint: Annotated[float | None, Above(0)] = None
    minibatch: Annotated[int, Above(0)] = 8
    biases: bool = False

    batches: ClassVar[bool] = True
    cost: ClassVar[Cost] = {"steps": "num_steps", "weight_gradients": True}

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return the names of the parameters that an edit may touch."""
        name = model.down_name(self.layer)
        if self.biases and getattr(model.down(self.layer), "bias", None) is not None:
            return name, name.removesuffix("weight") + "bias"
        return (name,)

    def __call__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        prepared: Prepared,
        state: Mapping[str, Tensor],
    ) -> Edit:
        """Return the trained update for these facts; the model is left as it was."""
        names = self.parameters(model)
        weights = [model.matrix(name) for name in names]
        updates = [torch.zeros(one.shape, device=one.device, requires_grad=True) for one in weights]
        groups = [facts[i : i + self.minibatch] for i in range(0, len(facts), self.minibatch)]
        batches = [_Minibatch(model, group, self.layer, self.objective) for group in groups]
        optimizer = torch.optim.Adam(updates, lr=self.lr)
        for step in range(1, self.num_steps + 1):
            mean = 0.0
            for batch in batches:
                loss = batch.loss(*updates)
                value = float(loss.detach())
                if not torch.isfinite(loss):
                    reason = (
                        f"fact '{batch.facts[0].fact_id}': the loss of the fine-tuning is {value} at step {step}; "
                        "lower lr, or evaluate an earlier checkpoint: the model may have collapsed"
                    )
                    raise UnstableEditError(reason)
                mean += value * len(batch.facts) / len(facts)
                if value >= STOP_LOSS:
                    self._step(optimizer, loss, updates)
            if mean < STOP_LOSS:
                break
        found = {
            name: self._boxed(model.matrix(name), update.detach())
            for name, update in zip(names, updates, strict=True)
        }
        return Edit(Delta(found), dict(state), {"loss": mean, "steps": float(step)})

    def _step(self, optimizer: torch.optim.Adam, loss: Tensor, updates: Sequence[Tensor]) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if self.norm_constraint is not None:
            with torch.no_grad():
                for update in updates:
                    update.clamp_(-self.norm_constraint, self.norm_constraint)

    def _boxed(self, weight: Float[Tensor, "*shape"], update: Float[Tensor, "*shape"]) -> Tensor:
        """Return the update such that W + ΔW, rounded to the weights' dtype, lies in the box.

        Rounding to nearest leaves the box by at most one step of the dtype, and never across W.
        """
        bound = self.norm_constraint
        if bound is None:
            return update
        before = weight.double()
        after = (before + update.double().clamp(-bound, bound)).to(weight.dtype)
        outside = (after.double() - before).abs() > bound
        after = torch.where(outside, torch.nextafter(after, weight), after)
        return after.double() - before


class _Minibatch:
    """Facts whose pass up to the trained layer was run once: the layers below it, and its keys, stay as they are."""

    def __init__(self, model: LanguageModel, facts: Sequence[Fact], layer: int, objective: str):
        rows = [tokenize(model.tokenizer, fact.text(), fact.target_new) for fact in facts]
        last_only = objective == "prompt_last"
        texts = [row.ids[: row.prompt_length] if last_only else row.ids[:-1] for row in rows]
        self.facts = facts
        self._model = model
        with capture(model.down(layer)) as down:
            self._resumed = ResumedRows(model, texts, [0] * len(texts), layer, layer, {})
        self._keys = down["input"].float()
        read = [
            (i, row.prompt_length - 1 + (0 if last_only else j), token, 1.0 / (len(row.target) * len(rows)))
            for i, row in enumerate(rows)
            for j, token in enumerate(row.target)
        ]
        self._row, self._column, self._token, self._weight = (
            torch.tensor(column, device=model.device) for column in zip(*read, strict=True)
        )

    def loss(
        self, update: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | float = 0.0
    ) -> Float[Tensor, ""]:
        """Return the mean over facts of the mean NLL of a target token, with the updates in place."""
        hidden = self._resumed.hidden
        assert hidden is not None  # the layer is 0 or above
        shifted = hidden + (self._keys @ update.T + bias).to(hidden.dtype)
        log_p = log_probabilities(self._model, self._resumed.final(shifted), self._row, self._column)
        return -(log_p.gather(1, self._token[:, None])[:, 0] * self._weight).sum()


METHOD = Ft
