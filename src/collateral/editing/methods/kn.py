"""KN: knowledge neurons (Dai et al. 2022, arXiv 2104.08696)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Delta, Factors
from collateral.editing.algorithms.integrated_gradients import LastToken, integrated_gradients
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared, UnstableEditError
from collateral.editing.ranges import Above, AtLeast, Below
from collateral.models.hooks import get_hidden
from collateral.models.language_model import LanguageModel
from collateral.models.partial_forward import log_probabilities
from collateral.models.tokenization import tokenize

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kn:
    """Find the neurons that raise the old answer's probability, and write the new answer over it in their values.

        P(a)    = p(old | prompt; a)                       a: neurons of one layer at the last token  (section 3.2)
        attr(a) = a * 1/m sum_{k=1..m} dP(k/m a) / da      m = steps, a Riemann sum                   (section 3.2)
        S       = { neurons of all layers : attr > adaptive_threshold * max attr }                    (section 3.3)
        W[:, n] += lambda_new e(new) - lambda_old e(old)   for n in S, e: input embedding             (section 5.1)

    A neuron is an input of the down projection, which in a gated MLP is the product of gate and input. Every one of
    them gets the whole shift, of a word embedding's size: few models survive it.

    Attributes:
        steps: points of the integral.
        adaptive_threshold: least attribution of an edited neuron, as a share of the largest of all layers.
        lambda_old: factor of the old answer's embedding (variant `paper`).
        lambda_new: factor of the new answer's embedding (variant `paper`).
        variant: `paper`, or `released`: what EasyEdit's code does.
        batch: scaled activations, times tokens of the prompt, that run side by side; for memory, not for results.
    """

    # ASSUME: the neurons of a layer are scaled together along the path, as all released codes do; the paper's P read
    # literally varies one neuron alone, which would take d_in times as long.
    # ASSUME (paper): an answer of several tokens has the mean of its tokens' attributions, each at the place
    # that predicts it, after the answer's earlier tokens; its embedding is the mean of its tokens'. BERT's are
    # single tokens in the paper.
    # DIFFERS: the neurons are not refined over several prompts of a fact (section 3.3): an edit has one prompt.

    steps: Annotated[int, Above(0)] = 20
    adaptive_threshold: Annotated[float, AtLeast(0), Below(1)] = 0.2
    lambda_old: Annotated[float, AtLeast(0)] = 1.0
    lambda_new: Annotated[float, AtLeast(0)] = 8.0
    variant: Literal["paper", "released"] = "paper"
    batch: Annotated[int, Above(0)] = 1024

    batches: ClassVar[bool] = False
    cost: ClassVar[Cost] = {"steps": "steps", "texts": "integral", "changes": "columns"}

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return the names of the parameters that an edit may touch: any layer may hold a knowledge neuron."""
        return tuple(model.down_name(layer) for layer in range(model.layers))

    def __call__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        prepared: Prepared,
        state: Mapping[str, Tensor],
    ) -> Edit:
        """Return the same value shift for every knowledge neuron of one fact; the model is left as it was."""
        (fact,) = facts
        if self.steps == 1:
            log.warning("kn: steps is 1: one gradient, not an integral, decides which neurons are edited")
        scores = self.attribution(model, fact)
        most = float(scores.max())
        if not torch.isfinite(scores).all() or most <= 0:
            reason = (
                f"fact '{fact.fact_id}': the largest attribution is {most}, so there is no knowledge neuron; "
                "evaluate an earlier checkpoint, or set unstable.action: skip: the model may have collapsed"
            )
            raise UnstableEditError(reason)
        shift = self._shift(model, fact)[:, None]
        chosen = scores > self.adaptive_threshold * most
        updates = {}
        for layer in range(model.layers):
            if chosen[layer].any():
                name = model.down_name(layer)
                place = model.matrix(name).device
                updates[name] = Factors(shift.to(place), chosen[layer].to(place, shift.dtype)[:, None])
        record = {"neurons": float(chosen.sum()), "delta_norm": float(shift.norm())}
        return Edit(Delta(updates), dict(state), record)

    def attribution(self, model: LanguageModel, fact: Fact) -> Float[Tensor, "layers d_in"]:
        """Return the attribution of every neuron of every layer to the old answer."""
        released = self.variant == "released"
        # DIFFERS (released): neurons before their activation function; both ends of the path.
        scales = (
            torch.linspace(0, 1, self.steps).tolist()
            if released
            else [k / self.steps for k in range(1, self.steps + 1)]
        )
        texts = self.texts(model, fact)
        total: Tensor | None = None
        for ids, token in texts:
            last = LastToken(model, ids, before_activation=released)
            score = integrated_gradients(last, token, scales, max(1, self.batch // len(ids)))
            total = score if total is None else total + score
        assert total is not None
        return total / len(texts)

    def texts(self, model: LanguageModel, fact: Fact) -> list[tuple[tuple[int, ...], int]]:
        """Return (text, next token whose probability is explained) for each token of the old answer."""
        prompt, old, _ = self._answers(model, fact)
        before = old
        if self.variant == "released":
            # DIFFERS (released): later tokens follow the model's own words (LLaMA and Qwen), or are all asked for
            # at the prompt's end (GPT).
            follows = model.network.config.model_type.startswith(("llama", "qwen"))
            before = greedy(model, prompt, len(old) - 1) if follows else ()
        return [((*prompt, *before[:j]), token) for j, token in enumerate(old)]

    def _answers(
        self, model: LanguageModel, fact: Fact
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Return the tokens of the prompt, of the answer that is explained and of the new answer."""
        new = tokenize(model.tokenizer, fact.text(), fact.target_new)
        prompt = new.ids[: new.prompt_length]
        if self.variant == "released":
            # DIFFERS (released): no leading space, and the tokenizer's special tokens count.
            target = tuple(model.tokenizer.encode(fact.target_new))
            old = tuple(model.tokenizer.encode(fact.target_true)) if fact.target_true else ()
            return prompt, old or greedy(model, prompt, len(target)), target
        if fact.target_true:
            row = tokenize(model.tokenizer, fact.text(), fact.target_true)
            return row.ids[: row.prompt_length], row.target, new.target
        return prompt, greedy(model, prompt, len(new.target)), new.target

    def _shift(self, model: LanguageModel, fact: Fact) -> Float[Tensor, " d_out"]:
        """Return what is added to the value of every chosen neuron."""
        prompt, old, new = self._answers(model, fact)
        embedding: Any = model.network.get_input_embeddings()
        table: Tensor = embedding.weight.data
        if self.variant == "paper":
            e_old, e_new = (table[list(ids)].float().mean(dim=0) for ids in (old, new))
            return self.lambda_new * e_new - self.lambda_old * e_old
        # DIFFERS (released): what is taken away is the model's own completion; sums; and a factor 2 of the old
        # answer, but not of the new one, where the answer is a single token.
        own = greedy(model, prompt, len(new))
        e_old, e_new = (table[list(ids)].float().sum(dim=0) for ids in (own, new))
        return e_new - (2.0 if len(new) == 1 else 1.0) * e_old


def greedy(model: LanguageModel, ids: Sequence[int], count: int) -> tuple[int, ...]:
    """Return the tokens that the model itself continues a text with, the likeliest at each step."""
    text = torch.tensor([ids], device=model.device)
    zero = torch.zeros(1, dtype=torch.long, device=model.device)
    for _ in range(count):
        with torch.no_grad():
            final = get_hidden(model.network.base_model(input_ids=text).last_hidden_state)
        best = log_probabilities(model, final[:, -1:], zero, zero).argmax(dim=1)
        text = torch.cat([text, best[:, None]], dim=1)
    return tuple(text[0, len(ids) :].tolist())


METHOD = Kn
