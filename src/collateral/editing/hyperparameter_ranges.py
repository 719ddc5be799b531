"""What values a method's numeric setting may take: one table for all methods, as their settings share names."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from collateral.errors import CollateralError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_ABOVE_ZERO = (
    "accumulate",
    "batch",
    "clamp_norm_factor",
    "edit_lr",
    "epsilon",
    "gradient_clip",
    "l2",
    "learning_rate",
    "lr",
    "max_steps",
    "minibatch",
    "mom2_update_weight",
    "n_iter",
    "nll_factor",
    "norm_constraint",
    "nullspace_threshold",
    "num_steps",
    "patience",
    "rank",
    "steps",
    "training_batch",
    "training_facts",
    "v_lr",
    "v_num_grad_steps",
    "validate_every",
)
_NOT_NEGATIVE = (
    "adaptive_threshold",
    "context_samples",
    "edit_factor",
    "edit_lr_rate",
    "emmet_lambda",
    "kl_factor",
    "lambda_new",
    "lambda_old",
    "layer",
    "locality_factor",
    "mom2_ridge",
    "v_weight_decay",
)
RANGES: dict[str, tuple[float, bool]] = {
    **dict.fromkeys(_ABOVE_ZERO, (0.0, False)),
    **dict.fromkeys(_NOT_NEGATIVE, (0.0, True)),
}


def check_ranges(method: str, settings: Mapping[str, Any]) -> None:
    """Check the numbers among some settings of a method.

    Raises:
        CollateralError: a number is out of its range, or a list of layers is empty or does not increase.
    """
    for name, value in settings.items():
        if name == "layers":
            _check_layers(method, list(value))
        elif name in RANGES and isinstance(value, int | float) and not isinstance(value, bool):
            low, included = RANGES[name]
            if not (value >= low if included else value > low):
                bound = f"must not be below {low:g}" if included else f"must be above {low:g}"
                raise CollateralError(f"{method}: {name} is {value}; it {bound}")


def _check_layers(method: str, layers: list[int]) -> None:
    if not layers or layers[0] < 0 or any(b <= a for a, b in pairwise(layers)):
        raise CollateralError(
            f"{method}: layers is {layers}; it must be a list of layer numbers that increase, e.g. [4, 5, 6]"
        )


def checked(method: "DataclassInstance") -> None:
    """Check the numeric settings of a method, which is a dataclass; for its `__post_init__`."""
    check_ranges(type(method).__module__.rsplit(".", 1)[-1], asdict(method))
