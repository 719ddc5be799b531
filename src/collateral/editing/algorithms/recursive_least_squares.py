"""Least squares whose keys come a few at a time: solved anew after each batch, in time that does not grow.

The system of n keys so far is A = A_0 + Σ k kᵀ, with A_0 = λ C (MEMIT-seq, D4S) or L2 I in a null space (AlphaEdit).
A method's state has a square root Q of its inverse, Q Qᵀ = A⁻¹, and takes up a batch K (Woodbury's identity within
the root, as in square-root filters: Potter 1963; Andrews 1968, AIAA Journal 6(6)). With F = Qᵀ K = Y diag(σ) Zᵀ:

    A'⁻¹   = Q (I + F Fᵀ)⁻¹ Qᵀ
    Q'     = Q (I + F Fᵀ)^(-1/2) = Q - Q Y diag(1 - 1/√(1 + σ²)) Yᵀ
    A'⁻¹ K = Q Y diag(σ/(1 + σ²)) Zᵀ,                                                        the gain

which is O(d_in² · facts), with no factorisation of A after the first operation. Q rather than A⁻¹ itself is kept
because its condition is the square root of A's: Q Qᵀ stays positive definite whatever is rounded. With C of condition
1e6 and 1e8 it is closer to the exact solution than `torch.linalg.solve` of the summed system, after 1,000 operations
as after one, where A⁻¹ loses two to four more digits. Beyond that, what is lost is at most 1e-14 times kᵀ A_0⁻¹ k,
summed over the repetitions of a key.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from collateral.editing.state import copy_tensor

Root = Float[Tensor, "d_in rank"]
Keys = Float[Tensor, "d_in facts"]


def update_root(grown: Root, keys: Keys) -> Keys:
    """Return the gain A'⁻¹ K of new keys, and turn the root of A⁻¹ into that of A'⁻¹, A' = A + K Kᵀ.

    Args:
        grown: Q (float64), contiguous and in memory of its own, on the keys' device; written over. With fewer columns
            than rows, A⁻¹ is the inverse in Q's span.
        keys: K (float64).
    """
    # transposes: a short, wide matrix times a square one is several times as fast as the same with columns
    mixing, sizes, along = torch.linalg.svd(keys.T @ grown, full_matrices=False)  # Fᵀ = Z diag(σ) Yᵀ
    moved = along @ grown.T
    damping = (1 + sizes**2)[:, None]
    gain = mixing @ (moved * (sizes[:, None] / damping))
    # 1 - 1/√(1 + σ²), without the cancellation where σ is small
    shrunk = sizes[:, None] ** 2 / (damping + damping.sqrt())
    grown.addmm_((moved * shrunk).T, along, alpha=-1)
    found: Keys = gain.T
    return found


def compute_gain(state: dict[str, Tensor], layer: int, keys: Keys, begin: Callable[[], Root]) -> Keys:
    """Return the gain of new keys of a layer, and keep the layer's new root in a method's state, as `root/{layer}`.

    Args:
        state: of the method; written into.
        layer: the layer's number.
        keys: K.
        begin: returns Q_0, of A_0⁻¹, a tensor of its own; asked where the state has no root yet, so that later links
            of a chain read no second moment.
    """
    name = f"root/{layer}"
    root = copy_tensor(state[name], keys.device) if name in state else begin().to(keys.device).contiguous()
    gain = update_root(root, keys)
    state[name] = root
    return gain


def refit(
    state: dict[str, Tensor], layer: int, keys: Keys, values: Float[Tensor, "d_out facts"], gain: Keys
) -> Float[Tensor, "d_out d_in"]:
    """Return the least-squares map X' of all keys so far to their values, and keep it as `update/{layer}`.

    Recursive least squares (Plackett 1950, Biometrika 37). With X = (Σ v kᵀ) A⁻¹ of the earlier pairs,

        X' = (X A + V Kᵀ) A'⁻¹ = X + (V - X K) (A'⁻¹ K)ᵀ,

    as A = A' - K Kᵀ: the pairs that X maps wrongly are corrected, along the gain.

    Args:
        state: of the method; written into. X begins at zero.
        layer: the layer's number.
        keys: K, the new ones.
        values: V, what they should map to.
        gain: A'⁻¹ K, of `gain_of`.
    """
    name = f"update/{layer}"
    if name in state:
        fitted = copy_tensor(state[name], keys.device)
        fitted.addmm_(values - (keys.T @ fitted.T).T, gain.T)
    else:
        fitted = values @ gain.T
    state[name] = fitted
    return fitted
