"""One parameter along its chain of checkpoints, without the others: what fits where a whole model does not."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from collateral.deltas.file_format import read_chain, read_parts
from collateral.deltas.increment import (
    Increment,
    add_change,
    check_chain,
    check_rebuilt,
    put_exceptions,
    rebuild,
    widen,
)
from collateral.deltas.update import snapshot
from collateral.models.language_model import LanguageModel


def replay(base: Tensor, name: str, outlines: Sequence[Increment]) -> Iterator[Tensor]:
    """Yield a parameter after each checkpoint of a chain: W_0 + the increments so far, each verified by hash.

    Held at once are the sum one width up, the state that was yielded, and a row group of one file.

    Args:
        base: W_0 of the parameter, as stored.
        name: of the parameter.
        outlines: the chain, in order, without elements (`read_chain(…, outlines=True)`): from its first checkpoint
            on, or from any where each increment is against W_0.

    Raises:
        CollateralError: a gap in the chain, another base model, a damaged file, or a result with another hash.
    """
    chain = [_select_parameter(outline, name) for outline in outlines]
    check_chain({name: base}, chain)
    live, total = base, widen(base)
    for increment in chain:
        if increment.metadata["mode"] == "replacing":
            live = base
            total = widen(base)
        if name in increment.metadata["parameters"]:
            for _, change in read_parts(increment, name):
                add_change(total, base, change)
            put_exceptions(total, increment.metadata["parameters"][name])
            live = total.to(base.dtype).reshape(base.shape)
            check_rebuilt(live, name, increment)
        yield live


def _select_parameter(increment: Increment, name: str) -> Increment:
    """Return an outline that knows one parameter at most."""
    parameters = {key: about for key, about in increment.metadata["parameters"].items() if key == name}
    return replace(increment, metadata={**increment.metadata, "parameters": parameters})


def apply_chain(model: LanguageModel, paths: Sequence[Path]) -> None:
    """Turn the unedited model into the checkpoint at the end of a chain of delta files, bit for bit.

    Raises:
        CollateralError: a file is damaged, missing, or belongs to another model.
    """
    outlines = read_chain(paths, model.base_sha256, outlines=True)
    names = {name for increment in outlines for name in increment.metadata["parameters"]}
    live = rebuild(snapshot(model, tuple(sorted(names))), outlines, parts=read_parts)
    for name, values in live.items():
        model.network.get_parameter(name).data.copy_(values)
