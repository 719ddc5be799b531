"""The inner optimisation of v* / z*, shared by the locate-then-edit family (ROME section 3.1, equation 4).

A batch of facts is one optimisation: every step is one pass over all facts that have not finished, resumed at
the edited layer, and each fact has its own Adam, its own clamp and its own end.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from collateral.data.facts import PLACEHOLDER, Fact
from collateral.editing.method import UnstableEditError
from collateral.models.hooks import shift_output
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import ResumedRows, Stem, log_probabilities
from collateral.models.tokenization import Row, tokenize

ESSENCE = "{} is a"  # ROME's prompt for what the subject is, which the edit should leave alone
Site = Literal["mlp", "block", "attention"]

# Tokens of one pass: bounds memory (activations for the gradient), not the result; more gain nothing on a CPU.
TOKENS_AT_ONCE = {"cpu": 192, "cuda": 16384}


@dataclass(frozen=True)
class Objective:
    """Settings of the optimisation.

    Attributes:
        steps: loss evaluations; the last one makes no update, so there are at most steps - 1 updates.
        learning_rate: Adam's.
        weight_decay: factor of ||delta|| / ||h_0||^2.
        clamp_factor: delta is projected onto ||delta|| <= clamp_factor * ||h_0||.
        kl_factor: factor of the essence-drift term.
        stop_loss: the optimisation ends when the whole loss is below this.
        sites: the outputs that are shifted, each by a delta of its own: the MLP's (ROME), the block's (MEMIT), or
            the attention's and the MLP's together (PMET).
        nll_factor: factor of the likelihood term.
        relaxed: PMET's end: while every target token is the argmax, the likelihood counts a tenth and a drift of at
            most 0.01 ends the optimisation.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    clamp_factor: float
    kl_factor: float
    stop_loss: float = 0.05
    sites: tuple[Site, ...] = ("mlp",)
    nll_factor: float = 1.0
    relaxed: bool = False


@runtime_checkable
class OptimizationSettings(Protocol):
    """The settings that all methods with an inner optimisation share; `Objective` says what they mean."""

    @property
    def v_num_grad_steps(self) -> int:
        """Loss evaluations."""

    @property
    def v_lr(self) -> float:
        """Adam's learning rate."""

    @property
    def v_weight_decay(self) -> float:
        """Factor of the size of delta."""

    @property
    def clamp_norm_factor(self) -> float:
        """Bound of the size of delta."""

    @property
    def kl_factor(self) -> float:
        """Factor of the essence drift."""


def read_objective(method: OptimizationSettings) -> Objective:
    """Return the objective that a method's settings describe."""
    return Objective(
        method.v_num_grad_steps,
        method.v_lr,
        method.v_weight_decay,
        method.clamp_norm_factor,
        method.kl_factor,
    )


@dataclass(frozen=True)
class Target:
    """What one optimisation found, with the activations that it had to compute anyway.

    Attributes:
        delta: shift, at the subject's last token, of the last of the objective's sites (d_out).
        keys: down-projection input at that token, one row a context template (contexts x d_in).
        values: that site's output there before the edit, one row a context template (contexts x d_out).
        losses: whole loss at each evaluation.
    """

    delta: Float[Tensor, " d_out"]
    keys: Float[Tensor, "contexts d_in"]
    values: Float[Tensor, "contexts d_out"]
    losses: tuple[float, ...]


def optimize_target(
    model: LanguageModel, fact: Fact, templates: Sequence[str], layer: int, objective: Objective
) -> Target:
    """Return the target of one fact, see `optimize_targets`."""
    (target,), _ = optimize_targets(model, [fact], templates, layer, objective)
    return target


def optimize_targets(
    model: LanguageModel,
    facts: Sequence[Fact],
    templates: Sequence[str],
    layer: int,
    objective: Objective,
    first_layer: int | None = None,
) -> tuple[list[Target], list[Stem]]:
    """Return, per fact, the shift `delta` of a site of `layer` at the subject that makes the model say target_new.

        L(delta) = nll_factor/n sum_contexts [ -1/|t| sum_j log p_delta(t_j | context, prompt, t_<j) ]
                   + kl_factor * KL( p_delta(. | "{subject} is a") || p_0(. | same) )
                   + weight_decay * sum_sites ||delta|| / ||h_0||^2

    with Adam and, after each step, projection onto ||delta|| <= clamp_factor ||h_0||; h_0 is the clean output of
    the site at the subject's last token of the bare prompt, which must be the first template. ROME (arXiv
    2202.05262) equation 4, MEMIT (2210.07229) equation 16; weight decay and clamping as in the released code.

    Also returned: the rows up to the subject with the residual stream below `first_layer` (`layer` if None), from
    which keys and residuals of an edit of several layers are measured.

    Raises:
        UnstableEditError: a loss is not finite.
    """
    # DIFFERS: the released code's comment has KL(p_0 || p_delta); its call, and the paper's equation 4,
    # compute KL(p_delta || p_0), which is what is minimised here.
    asked = [_Asked.of(model, fact, templates) for fact in facts]
    below = (layer if first_layer is None else first_layer) - 1
    targets: dict[int, Target] = {}
    stems: list[Stem] = []
    for chunk in _chunks(asked, TOKENS_AT_ONCE.get(model.device.type, 192)):
        search = _Search(model, [asked[i] for i in chunk], layer, objective, below)
        stems.append(search.stem(chunk))
        targets |= dict(zip(chunk, search.run(), strict=True))
    return [targets[i] for i in range(len(facts))], stems


def target_record(target: Target) -> dict[str, float]:
    """Return the record of one fact: last loss, number of loss evaluations, ||delta||."""
    return {
        "loss": target.losses[-1],
        "steps": float(len(target.losses)),
        "delta_norm": float(target.delta.norm()),
    }


@dataclass(frozen=True)
class _Asked:
    """The rows of one fact: one a template, then the essence prompt."""

    fact: Fact
    rows: tuple[Row, ...]
    essence: Row

    @classmethod
    def of(cls, model: LanguageModel, fact: Fact, templates: Sequence[str]) -> "_Asked":
        rows = [
            tokenize(model.tokenizer, fact.text(one), fact.target_new, fact.subject_span(one))
            for one in templates
        ]
        text = ESSENCE.replace(PLACEHOLDER, fact.subject, 1)
        return cls(fact, tuple(rows), tokenize(model.tokenizer, text, subject=(0, len(fact.subject))))

    @property
    def texts(self) -> list[tuple[tuple[int, ...], int]]:
        """Token ids that are run, without the last target token, and the subject's last token."""
        return [
            *((row.ids[:-1], row.subject_last) for row in self.rows),
            (self.essence.ids, self.essence.subject_last),
        ]

    @property
    def width(self) -> int:
        """Number of tokens from the subject's last on, in the longest row."""
        return max(len(ids) - start for ids, start in self.texts)


def _chunks(asked: Sequence[_Asked], budget: int) -> list[list[int]]:
    """Return the facts in groups of similar length whose padded suffixes fit the token budget."""
    chunks: list[list[int]] = []
    for number in sorted(range(len(asked)), key=lambda i: asked[i].width):
        own = asked[number]  # the widest so far: it decides the padded width of its chunk
        if chunks and (len(chunks[-1]) + 1) * len(own.texts) * own.width <= budget:
            chunks[-1].append(number)
        else:
            chunks.append([number])
    return chunks


class _Search:
    """One batched optimisation over the facts of a chunk; what is indexed by living facts shrinks with them."""

    def __init__(
        self, model: LanguageModel, asked: Sequence[_Asked], layer: int, objective: Objective, below: int
    ):
        self._model, self._asked, self._objective = model, asked, objective
        modules = {"mlp": model.mlp, "block": model.block, "attention": model.attention}
        self._modules: dict[str, nn.Module] = {site: modules[site](layer) for site in objective.sites}
        texts = [text for own in asked for text in own.texts]
        # the MLP's output enters the residual stream as it is; what enters the MLP needs the layer itself run
        self._inside = "attention" in objective.sites
        self._rows = ResumedRows(
            model,
            [ids for ids, _ in texts],
            [start for _, start in texts],
            layer - 1 if self._inside else layer,
            layer,
            self._modules,
            below,
        )
        self._per_fact = len(asked[0].texts)
        bare = torch.arange(len(asked), device=self._rows.keys.device) * self._per_fact
        self._h_0 = torch.stack([self._rows.seen[site][bare].float() for site in objective.sites], dim=1)
        self._limits = objective.clamp_factor * self._h_0.norm(dim=-1, keepdim=True)
        self._alive = list(range(len(asked)))
        self._delta = torch.zeros_like(self._h_0, requires_grad=True)
        self._adam = _Adam(self._delta, objective.learning_rate)
        self._reads = _Reads.of([own.rows for own in asked], model.device)
        self._relax = torch.ones(len(asked), device=model.device)
        self._log_p_0: Tensor | None = None
        self._found = torch.zeros_like(self._h_0)
        self._losses: list[list[float]] = [[] for _ in asked]

    def stem(self, numbers: Sequence[int]) -> Stem:
        """Return the template rows of the facts, which have these numbers in the whole batch."""
        templates = self._per_fact - 1
        owner = [number for number in numbers for _ in range(self._per_fact)]
        template = list(range(self._per_fact)) * len(numbers)
        stem = self._rows.stem(owner, template)
        return stem.select([i for i, one in enumerate(template) if one < templates])

    def run(self) -> list[Target]:
        """Return the target of each fact."""
        steps = self._objective.steps
        for step in range(steps):
            loss, ended = self._evaluate(step)
            if step == steps - 1 or all(ended):
                self._found[self._alive] = self._delta.detach()
                break
            (gradient,) = torch.autograd.grad(loss.sum(), self._delta)
            if any(ended):
                gradient = self._dismiss(ended, gradient)
            with torch.no_grad():
                self._adam.step(gradient)
                size = self._delta.norm(dim=-1, keepdim=True).clamp_min(1e-12)
                self._delta *= (self._limits[self._alive] / size).clamp_max(1.0)
        return [self._target(i) for i in range(len(self._asked))]

    def _evaluate(self, step: int) -> tuple[Float[Tensor, " facts"], list[bool]]:
        """Return the loss of each living fact, and whether it has reached its end."""
        objective, reads = self._objective, self._reads
        log_p = log_probabilities(self._model, self._final(self._delta), reads.row, reads.column)
        essence = log_p[len(reads.token) :]
        if self._log_p_0 is None:
            self._log_p_0 = essence.detach().clone()  # not a view, which would keep all reads
        # of one row more for each essence, which is not used: the gradient of a slice would be one more such array
        tokens = functional.pad(reads.token, (0, len(log_p) - len(reads.token)))
        picked = log_p.gather(1, tokens[:, None])[: len(reads.token), 0]
        nll = -torch.zeros_like(self._relax).index_add(0, reads.fact, picked * reads.weight)
        drift = functional.kl_div(self._log_p_0, essence, log_target=True, reduction="none").sum(dim=1)
        drift = objective.kl_factor * drift
        decay = (self._delta.norm(dim=-1) / self._h_0[self._alive].norm(dim=-1) ** 2).sum(dim=1)
        loss = objective.nll_factor * self._relax * nll + drift
        loss = loss + objective.weight_decay * decay.to(loss.device)  # deltas lie on the edited layer's GPU
        values = loss.tolist()
        self._check([self._asked[i].fact for i in self._alive], values, step)
        for number, value in zip(self._alive, values, strict=True):
            self._losses[number].append(value)
        ended = [value < objective.stop_loss for value in values]
        if objective.relaxed:
            right = reads.all_right(log_p, len(self._alive))
            self._relax = torch.where(right, 0.1, 1.0)
            low = (right & (drift <= 0.01)).tolist()
            ended = [one or other for one, other in zip(ended, low, strict=True)]
        return loss, ended

    def _dismiss(self, ended: Sequence[bool], gradient: Tensor) -> Tensor:
        """Let the facts that have reached their end leave the batch, and return the gradient of the others."""
        assert self._log_p_0 is not None
        stay = [i for i, end in enumerate(ended) if not end]
        for i, end in enumerate(ended):
            if end:
                self._found[self._alive[i]] = self._delta.detach()[i]
        self._alive = [self._alive[i] for i in stay]
        self._rows.keep([i * self._per_fact + j for i in stay for j in range(self._per_fact)])
        self._reads = _Reads.of([self._asked[i].rows for i in self._alive], self._model.device)
        self._log_p_0, self._relax = self._log_p_0[stay], self._relax[stay]
        self._delta = self._adam.keep(stay)
        return gradient[stay]

    def _final(self, delta: Tensor) -> Tensor:
        """Return the last hidden states with the shifts in place, for every row of every living fact."""
        shifts = delta.repeat_interleave(self._per_fact, dim=0)
        if not self._inside:
            assert self._rows.hidden is not None
            shifted = self._rows.hidden.clone()
            shifted[:, 0] = shifted[:, 0] + shifts[:, 0].to(shifted.dtype)
            return self._rows.final(shifted)
        with ExitStack() as hooks:
            for number, module in enumerate(self._modules.values()):
                hooks.enter_context(shift_output(module, 0, shifts[:, number]))
            return self._rows.final(self._rows.hidden)

    @staticmethod
    def _check(facts: Sequence[Fact], losses: Sequence[float], step: int) -> None:
        for fact, loss in zip(facts, losses, strict=True):
            if not torch.isfinite(torch.tensor(loss)):
                reason = (
                    f"fact '{fact.fact_id}': the loss of the value optimisation is {loss} at step {step}; lower "
                    "v_lr, or evaluate an earlier checkpoint: the model may have collapsed"
                )
                raise UnstableEditError(reason)

    def _target(self, number: int) -> Target:
        rows = slice(number * self._per_fact, (number + 1) * self._per_fact - 1)
        values = self._rows.seen[self._objective.sites[-1]][rows]
        return Target(self._found[number, -1], self._rows.keys[rows], values, tuple(self._losses[number]))


class _Adam:
    """Adam (betas 0.9, 0.999, epsilon 1e-8) on rows that may leave: torch's optimiser cannot drop a row's state."""

    def __init__(self, parameter: Tensor, learning_rate: float):
        self._parameter, self._rate, self._steps = parameter, learning_rate, 0
        self._first, self._second = (torch.zeros_like(parameter, requires_grad=False) for _ in range(2))

    def keep(self, rows: Sequence[int]) -> Tensor:
        """Drop all rows but these and return the new parameter."""
        index = torch.tensor(rows, device=self._parameter.device)
        self._parameter = self._parameter.detach()[index].requires_grad_()
        self._first, self._second = self._first[index], self._second[index]
        return self._parameter

    def step(self, gradient: Tensor) -> None:
        """Move the parameter against its gradient."""
        self._steps += 1
        self._first.lerp_(gradient, 1 - 0.9)
        self._second.mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        scale = (self._second / (1 - 0.999**self._steps)).sqrt_().add_(1e-8)
        self._parameter.addcdiv_(self._first, scale, value=-self._rate / (1 - 0.9**self._steps))


@dataclass(frozen=True)
class _Reads:
    """Where log-probabilities are read: every target token of every row, then each essence row's subject."""

    row: Tensor
    column: Tensor
    token: Tensor
    weight: Tensor
    fact: Tensor

    @classmethod
    def of(cls, facts: Sequence[Sequence[Row]], device: torch.device) -> "_Reads":
        read: list[tuple[int, int, int, float, int]] = []
        per_fact = len(facts[0]) + 1
        for fact, rows in enumerate(facts):
            for number, row in enumerate(rows):
                read += [
                    (
                        fact * per_fact + number,
                        row.prompt_length - 1 + j - row.subject_last,
                        token,
                        1.0 / (len(row.target) * len(rows)),
                        fact,
                    )
                    for j, token in enumerate(row.target)
                ]
        row_, column, token_, weight, owner = zip(*read, strict=True)
        essences = [(fact + 1) * per_fact - 1 for fact in range(len(facts))]
        return cls(
            torch.tensor([*row_, *essences], device=device),
            torch.tensor([*column, *[0] * len(facts)], device=device),
            torch.tensor(token_, device=device),
            torch.tensor(weight, device=device),
            torch.tensor(owner, device=device),
        )

    def all_right(self, log_p: Tensor, facts: int) -> Tensor:
        """Return, per fact, whether every target token is the argmax."""
        wrong = log_p[: len(self.token)].argmax(dim=1) != self.token
        return torch.zeros(facts, device=log_p.device).index_add(0, self.fact, wrong.float()) == 0
