"""The families of models by name: which matrix is edited, and how each family stores it. Torch-free.

A family is a file in `families/` that names its `Architecture` FAMILY; its name is transformers' `model_type`.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collateral.errors import unknown_name

FOLDER = Path(__file__).parent / "families"


@dataclass(frozen=True)
class Architecture:
    """Module paths of one model family; `{}` stands for the layer number.

    Attributes:
        block: a decoder layer; its output is the residual stream.
        mlp: the MLP module of that layer.
        down: the down projection, the matrix that ROME, MEMIT and their kin edit.
        attention: the attention's output projection.
        inputs: the MLP's input projections, one of them (the gate, if gated) first.
        transposed: the family stores W as d_in x d_out (GPT-2's Conv1D).
    """

    block: str
    mlp: str
    down: str
    attention: str
    inputs: tuple[str, ...]
    transposed: bool = False


def describe_family(
    block: str, *, down: str, attention: str, inputs: Sequence[str], transposed: bool = False
) -> Architecture:
    """Return the module paths of a family: `down` and `inputs` lie in the block's `mlp`, `attention` in the block."""
    mlp = f"{block}.mlp"
    paths = tuple(f"{mlp}.{name}" for name in inputs)
    return Architecture(block, mlp, f"{mlp}.{down}", f"{block}.{attention}", paths, transposed)


def family_names() -> list[str]:
    """Return the names of all families."""
    return sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


def load_family(name: str) -> Architecture:
    """Return the module paths of a family.

    Raises:
        CollateralError: no such family; the message has the nearest.
    """
    if name not in family_names():
        raise unknown_name("model family", name, family_names())
    architecture: Architecture = importlib.import_module(f"collateral.models.families.{name}").FAMILY
    return architecture
