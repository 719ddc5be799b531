"""MEND: model editor networks with gradient decomposition (Mitchell et al. 2022, arXiv 2110.11309)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from collateral.data.facts import Fact
from collateral.deltas.update import Delta
from collateral.editing.algorithms.hypernetwork import read_hypernetwork
from collateral.editing.algorithms.token_gradients import Passage, compute_gradients
from collateral.editing.cost import Cost
from collateral.editing.method import Edit, Prepared, UnstableEditError
from collateral.editing.ranges import Above, AtLeast, Increasing
from collateral.models.language_model import LanguageModel
from collateral.models.tokenization import tokenize


@dataclass(frozen=True)
class Mend:
    """Turn the gradient of an edit into an update by a network that was trained to.

        dL/dW = Σ_tokens d xᵀ                          L: NLL of the new answer, per token      (section 3.1)
        (x̃, d̃) = g(x, d)                               `algorithms.hypernetwork`                (equation 3)
        ΔW = -α Σ_tokens d̃ x̃ᵀ                          α: learnt, one for each matrix           (section 3.2)
        L_train = c_e · NLL(new answer | prompt and paraphrases; W + ΔW)
                + c_loc · KL(p_W ‖ p_{W + ΔW}) on the neighborhood                              (equation 4)

    over the MLP matrices of `layers`. The network is trained once, on facts that are never edited, at the
    unedited weights; in a sequence of edits it stays as it is while the model moves. A batch is the sum of its
    facts' losses.

    Attributes:
        layers: decoder layers whose MLP matrices are edited (0 is the first); MEND's are the last three.
        training_facts: number of facts to train on: the last ones of the sequence.
        rank: of the hypernetwork's weight matrices.
        edit_lr: start of each α.
        edit_lr_rate: Adam's learning rate for the αs.
        learning_rate: Adam's learning rate for the rest.
        max_steps: most optimiser steps.
        accumulate: edits in an optimiser step.
        training_batch: facts in an edit while training; choose the editor's batch_size.
        validate_every: optimiser steps between validations, at which the training can be resumed.
        patience: optimiser steps without a better validation loss after which the training ends.
        edit_factor: c_e.
        locality_factor: c_loc.
        gradient_clip: largest norm of the training's gradient.
        variant: `paper`, or `released`: no ReLU in g's second layer, and the update is added.
    """

    layers: Annotated[tuple[int, ...], Increasing()]
    training_facts: Annotated[int, Above(0)]
    rank: Annotated[int, Above(0)] = 1920
    edit_lr: Annotated[float, Above(0)] = 0.0001
    edit_lr_rate: Annotated[float, AtLeast(0)] = 0.0001
    learning_rate: Annotated[float, Above(0)] = 0.000001
    max_steps: Annotated[int, Above(0)] = 10000
    accumulate: Annotated[int, Above(0)] = 10
    training_batch: Annotated[int, Above(0)] = 1
    validate_every: Annotated[int, Above(0)] = 500
    patience: Annotated[int, Above(0)] = 2000
    edit_factor: Annotated[float, AtLeast(0)] = 0.1
    locality_factor: Annotated[float, AtLeast(0)] = 1.0
    gradient_clip: Annotated[float, Above(0)] = 100.0
    variant: Literal["paper", "released"] = "paper"

    batches: ClassVar[bool] = True
    hypernetwork: ClassVar[bool] = True
    cost: ClassVar[Cost] = {"steps": 1, "changes": "mlp"}

    def parameters(self, model: LanguageModel) -> tuple[str, ...]:
        """Return the names of the parameters that an edit may touch."""
        return tuple(
            name for layer in self.layers for name in (*model.input_names(layer), model.down_name(layer))
        )

    def shapes(self, model: LanguageModel) -> dict[str, tuple[int, int]]:
        """Return (d_out, d_in) of each edited matrix."""
        sizes = {name: model.matrix(name).shape for name in self.parameters(model)}
        return {name: (size[0], size[1]) for name, size in sizes.items()}

    def __call__(
        self,
        model: LanguageModel,
        facts: Sequence[Fact],
        prepared: Prepared,
        state: Mapping[str, Tensor],
    ) -> Edit:
        """Return the update for these facts together; the model is left as it was."""
        shapes = self.shapes(model)
        trained = prepared.learnt(
            lambda path: read_hypernetwork(path, model, shapes, self.rank, self.variant)
        )
        trained.check_new(facts)
        rows = [tokenize(model.tokenizer, fact.text(), fact.target_new) for fact in facts]
        found, loss = compute_gradients(model, Passage(model, rows, self.layers[0]), list(shapes), len(rows))
        with torch.no_grad():
            updates = trained.network(found)
        finite = all(
            torch.isfinite(each.left).all() and torch.isfinite(each.right).all() for each in updates.values()
        )
        if not finite:
            reason = (
                f"fact '{facts[0].fact_id}': MEND's update is not finite (loss {loss}); evaluate an earlier "
                "checkpoint: the model may have collapsed"
            )
            raise UnstableEditError(reason)
        return Edit(Delta(updates), dict(state), {"loss": loss})


METHOD = Mend
