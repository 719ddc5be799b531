"""The model at a checkpoint: its weights, and for an editor that changes none, what it learnt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from collateral.deltas.file_format import read_outline
from collateral.deltas.replay import apply_chain
from collateral.editing.method import attach
from collateral.editing.registry import load_method
from collateral.editing.state import read_state, recipe_sha256
from collateral.models.language_model import LanguageModel


@contextmanager
def at_checkpoint(model: LanguageModel, deltas: Sequence[Path], state: Path | None = None) -> Iterator[None]:
    """Within, the unedited model answers as at the end of a chain; its weights stay there afterwards.

    Args:
        model: the unedited model.
        deltas: the chain's files, in order; none for the unedited model.
        state: the last checkpoint's state, where the editor is an adapter.

    Raises:
        CollateralError: a file is damaged, or belongs to another model, editor or number of edits.
    """
    apply_chain(model, deltas)
    if state is None:
        yield
        return
    about = read_outline(deltas[-1]).metadata
    recipe = about["editor"]
    method = load_method(recipe["method"], recipe["settings"])
    with attach(method, model, read_state(state, about["to_edits"], recipe_sha256(recipe))):
        yield
