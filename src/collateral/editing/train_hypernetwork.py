"""Training of MEND's hypernetwork: resumable, with early stopping (arXiv 2110.11309, section 3.3)."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from collateral.data.edit_order import derive_seed, last_facts, sampled_facts
from collateral.data.facts import Fact, read_facts
from collateral.editing.algorithms.hypernetwork import Hypernetwork, write_hypernetwork
from collateral.editing.algorithms.token_gradients import (
    Gradient,
    Passage,
    apply_updates,
    compute_gradients,
    join_gradients,
)
from collateral.editing.methods.mend import Mend
from collateral.editing.registry import load_method
from collateral.errors import CollateralError
from collateral.io.log_levels import NOTE
from collateral.models.language_model import LanguageModel, load_model
from collateral.models.tensor_file import read_tensors, write_tensors
from collateral.models.tokenization import tokenize

log = logging.getLogger(__name__)

HELD_OUT = 8  # every eighth training fact is for validation
_KEPT = 512  # lessons in memory; further ones are computed anew at each turn


def train_hypernetwork(
    *,
    model: Path,
    facts: Path,
    sequence: Path,
    known: Path | None,
    training: Path | None,
    settings: Mapping[str, Any],
    seed: int,
    edits: int,
    code: str,
    dtype: str,
    device: str,
    archive: Path,
) -> None:
    """Train MEND's hypernetwork on facts of its own, or on the last of a sequence, and write it.

    Args:
        model: the model's folder.
        facts: the data set.
        sequence: the order of the edits.
        known: what the unedited model knows; None takes every fact.
        training: further facts, to train on; None takes the last of the sequence.
        settings: of MEND.
        seed: of the study.
        edits: last checkpoint of the editor: the first so many facts are not trained on.
        code: fingerprint; a training that was begun with another code is not resumed.
        dtype: of the model's weights.
        device: where the training runs.
        archive: written: the hypernetwork.

    Raises:
        CollateralError: there are too few facts, or the training diverges.
    """
    mend: Mend = load_method("mend", settings)
    by_id = {fact.fact_id: fact for fact in read_facts(training or facts)}
    if training:
        chosen = sampled_facts(by_id, seed, mend.training_facts, training)
    else:
        chosen = last_facts(by_id, sequence, known, mend.training_facts, edits)
    Training(load_model(model, dtype, device), chosen, mend, seed, archive, f"{code} {dtype} {device}").run()


@dataclass(frozen=True)
class _Lesson:
    """One fact, at the unedited weights: the gradient of its edit, and what is asked of the edited model.

    The passage's rows are the prompt, the paraphrases and the neighborhood; the first `asked` want target_new.
    """

    gradients: dict[str, Gradient]
    passage: Passage
    asked: int
    log_p: Float[Tensor, "reads vocabulary"]


class Training:
    """A training: its facts, the network as it stands, and how to resume it.

    L = c_e · mean NLL(target_new | prompt and paraphrases; W + ΔW)
      + c_loc · mean KL(p_W ‖ p_{W + ΔW}) before each answer token of the neighborhood         (equation 4)
    """

    def __init__(
        self, model: LanguageModel, facts: Sequence[Fact], mend: Mend, seed: int, archive: Path, code: str
    ):
        """Prepare a training or take up one that was interrupted.

        Args:
            model: unedited; left as it is.
            facts: to train on, every eighth for validation.
            mend: the method's settings.
            seed: of the network's start and the order of the facts.
            archive: where the network goes; `.partial` beside it is the interrupted training.
            code: of whatever else it depends on; an interrupted training of another code is not resumed.

        Raises:
            CollateralError: fewer than two facts.
        """
        if len(facts) < 2:
            raise CollateralError(
                f"training_facts is {len(facts)}; give at least 2: one to learn, one to validate"
            )
        self._model, self._mend, self._seed, self._facts = model, mend, seed, list(facts)
        self._archive = archive
        self._partial = archive.with_name(f"{archive.name}.partial")
        self._held, self._learned = facts[::HELD_OUT], [f for i, f in enumerate(facts) if i % HELD_OUT]
        self._lessons: dict[str, _Lesson] = {}
        self._shapes = mend.shapes(model)
        start = derive_seed("hypernetwork", seed)
        self.network = Hypernetwork(self._shapes, mend.rank, mend.edit_lr, mend.variant, start)
        self.network.to(model.device)
        self._adam = torch.optim.Adam(self.network.networks.parameters(), lr=mend.learning_rate)
        self._adam.add_param_group({"params": [self.network.edit_lr], "lr": mend.edit_lr_rate})
        self._step = 0
        self._best: dict[str, Tensor] = {}
        self._losses: list[tuple[int, float]] = []  # (step, validation loss)
        told = [code, model.base_sha256, seed, asdict(mend), [asdict(fact) for fact in facts]]
        self._identity = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def losses(self) -> list[tuple[int, float]]:
        """(optimiser step, validation loss) so far."""
        return list(self._losses)

    def run(self) -> None:
        """Train until the validation loss no longer falls, and write the best network.

        Raises:
            CollateralError: the loss is not finite.
        """
        mend = self._mend
        if not self._resumed():
            # DIFFERS: the released code's running mean and deviation move while it trains; here they are those of
            # all training facts from the start, which is where running ones tend to.
            learned = tqdm(self._learned, desc="gradients", unit="fact", disable=None)
            self.network.standardize(self._lesson(fact).gradients for fact in learned)
            self._validate()
        with tqdm(
            total=mend.max_steps, initial=self._step, desc="hypernetwork", unit="step", disable=None
        ) as progress:
            while self._step < mend.max_steps and not self._is_over():
                self._optimize()
                progress.update()
                if self._step % mend.validate_every == 0 or self._step == mend.max_steps:
                    self._validate()
                    progress.set_postfix(validation=self._losses[-1][1])
        best, loss = min(self._losses, key=lambda entry: entry[1])
        self.network.load_state_dict(self._best)
        log.log(
            NOTE,
            "hypernetwork: %d facts, %d steps, validation loss %.4g, then %.4g at step %d",
            len(self._facts),
            self._step,
            self._losses[0][1],
            loss,
            best,
        )
        about = {
            "matrices": list(self._shapes),
            "rank": mend.rank,
            "variant": mend.variant,
            "settings": asdict(mend),
            "validation": self._losses,
        }
        write_hypernetwork(self.network, self._archive, self._model.base_sha256, self._facts, about)
        self._partial.unlink(missing_ok=True)

    def _is_over(self) -> bool:
        best, _ = min(self._losses, key=lambda entry: entry[1])
        return self._step - best >= self._mend.patience

    def _optimize(self) -> None:
        """Make one optimiser step."""
        mend = self._mend
        self._adam.zero_grad()
        first = self._step * mend.accumulate * mend.training_batch
        order = self._order(first)
        for _ in range(mend.accumulate):
            loss = self._loss([next(order) for _ in range(mend.training_batch)]) / mend.accumulate
            self._finite(loss).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), mend.gradient_clip, error_if_nonfinite=False)
        self._adam.step()
        self._step += 1

    def _order(self, first: int) -> Iterator[Fact]:
        """Yield the training facts from place `first` on of an endless series of shuffled rounds."""
        size = len(self._learned)
        while True:
            generator = torch.Generator().manual_seed(derive_seed("lessons", self._seed, first // size))
            shuffled = torch.randperm(size, generator=generator).tolist()
            for place in shuffled[first % size :]:
                yield self._learned[place]
            first += size - first % size

    def _loss(self, facts: Sequence[Fact]) -> Float[Tensor, ""]:
        """Return the loss of one edit of some facts together."""
        mend = self._mend
        lessons = [self._lesson(fact) for fact in facts]
        updates = self.network(join_gradients([lesson.gradients for lesson in lessons]))
        total = torch.zeros((), device=self._model.device)
        with apply_updates(self._model, updates):
            for lesson in lessons:
                log_p = lesson.passage.log_p()
                nll = lesson.passage.nll(log_p)[: lesson.asked].mean()
                near = lesson.passage.row >= lesson.asked
                drift = functional.kl_div(log_p[near], lesson.log_p, log_target=True, reduction="sum")
                total = (
                    total + mend.edit_factor * nll + mend.locality_factor * drift / near.sum().clamp_min(1)
                )
        return total / len(facts)

    def _lesson(self, fact: Fact) -> _Lesson:
        if fact.fact_id in self._lessons:
            return self._lessons[fact.fact_id]
        # ASSUME: locality is asked where the answers of the neighborhood are read, given the answer so far
        pairs = [(text, fact.target_new) for text in (fact.text(), *fact.paraphrases)]
        asked = len(pairs)
        pairs += [(probe.prompt, probe.target) for probe in fact.neighborhood]
        rows = [tokenize(self._model.tokenizer, prompt, target) for prompt, target in pairs]
        passage = Passage(self._model, rows, self._mend.layers[0])
        found, _ = compute_gradients(self._model, passage, list(self._shapes), 1)
        with torch.no_grad():
            log_p = passage.log_p()[passage.row >= asked]
        lesson = _Lesson(found, passage, asked, log_p)
        if len(self._lessons) < _KEPT:
            self._lessons[fact.fact_id] = lesson
        return lesson

    def _finite(self, loss: Tensor) -> Tensor:
        if not torch.isfinite(loss):
            raise CollateralError(
                f"the training of the hypernetwork has the loss {float(loss.detach())} after step {self._step}; "
                f"lower learning_rate ({self._mend.learning_rate:g}), edit_lr_rate ({self._mend.edit_lr_rate:g}) or "
                f"edit_lr ({self._mend.edit_lr:g})"
            )
        return loss

    @torch.no_grad()
    def _validate(self) -> None:
        """Measure the held-out loss, remember the best network, and write what a resumed training needs."""
        size = self._mend.training_batch
        groups = [self._held[i : i + size] for i in range(0, len(self._held), size)]
        loss = float(
            self._finite(sum((self._loss(g) * len(g) for g in groups), torch.zeros(())) / len(self._held))
        )
        if not self._losses or loss < min(value for _, value in self._losses):
            self._best = {name: value.clone() for name, value in self.network.state_dict().items()}
        self._losses.append((self._step, loss))
        log.info("step %d: validation loss %.5g", self._step, loss)
        tensors = {f"now/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self._best.items()}
        for number, own in self._adam.state_dict()["state"].items():
            tensors |= {f"adam/{number}/{name}": value for name, value in own.items()}
        about = {"identity": self._identity, "step": self._step, "losses": self._losses}
        write_tensors(tensors, self._partial, about)

    def _resumed(self) -> bool:
        """Take up an interrupted training of the same settings, facts and code, if there is one."""
        if not self._partial.exists():
            return False
        try:
            tensors, about = read_tensors(self._partial, "an interrupted training")
        except CollateralError as error:
            log.warning("starting anew: %s", error)
            return False
        if about.get("identity") != self._identity:
            log.warning("%s: of other settings, facts or code; starting anew", self._partial)
            return False
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "adam": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = value
        device = self._model.device
        self.network.load_state_dict(parts["now"])
        self._best = {name: value.to(device) for name, value in parts["best"].items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["adam"].items():
            number, _, kind = name.partition("/")
            moments.setdefault(int(number), {})[kind] = value
        self._adam.load_state_dict({**self._adam.state_dict(), "state": moments})
        self._step = about["step"]
        self._losses = [(step, loss) for step, loss in about["losses"]]
        log.log(NOTE, "hypernetwork: resuming at step %d", self._step)
        return True
