"""Streaming second moments of the keys, C = E[k kᵀ], one file a layer."""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from collateral.errors import CollateralError
from collateral.hooks import stop_at
from collateral.models import LanguageModel
from collateral.tensorfile import read_tensors, write_tensors

log = logging.getLogger(__name__)

_FORMAT = "collateral-moment/1"


def factorised(matrix: Float[Tensor, "n n"], what: str) -> Float[Tensor, "n n"]:
    """Return the Cholesky factor of a symmetric matrix.

    Args:
        matrix: the matrix.
        what: it is, for the message.

    Raises:
        CollateralError: the matrix is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        raise CollateralError(
            f"the {what} is not positive definite; raise moments.tokens (at least 10 per dimension, here "
            f"{10 * len(matrix)}) or set mom2_ridge, e.g. 0.01"
        )
    found: Tensor = factor
    return found


@dataclass(frozen=True)
class Moment:
    """Second moment of one layer's keys.

    Attributes:
        matrix: C (float64).
        tokens: number of tokens that it is the mean over.
    """

    matrix: Float[Tensor, "d_in d_in"]
    tokens: int
    _null: dict[float, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _cholesky: dict[tuple[float, str], Tensor] = field(default_factory=dict, repr=False, compare=False)
    _roots: dict[tuple[float, str], Tensor] = field(default_factory=dict, repr=False, compare=False)

    def ridged(self, ridge: float, device: torch.device | str = "cpu") -> Float[Tensor, "d_in d_in"]:
        """Return C + ridge · mean(diag C) · I on a device."""
        shift = ridge * self.matrix.diagonal().mean()
        eye = torch.eye(len(self.matrix), dtype=torch.float64, device=device)
        return self.matrix.to(device) + shift * eye

    def solve(self, keys: Float[Tensor, "..."], ridge: float = 0.0) -> Float[Tensor, "..."]:
        """Return (C + ridge · mean(diag C) · I)⁻¹ keys, by a Cholesky factor that is kept.

        Raises:
            CollateralError: the matrix is not positive definite.
        """
        known = (ridge, str(keys.device))
        if known not in self._cholesky:
            self._cholesky[known] = self._factor(ridge, keys.device)
        columns = keys.double().reshape(len(keys), -1)
        solved = torch.cholesky_solve(columns, self._cholesky[known])
        return solved.reshape(keys.shape).to(keys.dtype)

    def _factor(self, ridge: float, device: torch.device | str) -> Float[Tensor, "d_in d_in"]:
        return factorised(self.ridged(ridge, device), f"second moment over {self.tokens} tokens")

    def inverse_root(
        self, weight: float, ridge: float, device: torch.device | str
    ) -> Float[Tensor, "d_in d_in"]:
        """Return Q = L⁻ᵀ/√λ, with L Lᵀ = C + ridge · mean(diag C) · I, so that Q Qᵀ is the inverse of λ times it.

        L⁻ᵀ is kept, for edits that each begin anew.

        Args:
            weight: λ.
            ridge: added to C, see `ridged`.
            device: where C is factorised and Q lies.

        Raises:
            CollateralError: the matrix is not positive definite.
        """
        known = (ridge, str(device))
        if known not in self._roots:
            factor = self._factor(ridge, device)
            eye = torch.eye(len(factor), dtype=factor.dtype, device=device)
            self._roots[known] = torch.linalg.solve_triangular(factor, eye, upper=False).T
        return self._roots[known] / math.sqrt(weight)

    def damped_inverse(
        self, keys: Float[Tensor, "d_in facts"], weight: float, ridge: float = 0.0
    ) -> Float[Tensor, "d_in facts"]:
        """Return (λ C + K Kᵀ)⁻¹ K = (λC)⁻¹ K (I + Kᵀ (λC)⁻¹ K)⁻¹, with C's factor shared by all operations.

        Args:
            keys: K.
            weight: λ.
            ridge: added to C, see `ridged`.
        """
        solved = self.solve(keys, ridge) / weight
        inner = keys.T @ solved
        inner += torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
        damped: Tensor = torch.linalg.solve(inner, solved, left=False)
        return damped

    def null_space(self, threshold: float, device: torch.device | str = "cpu") -> Float[Tensor, "d_in null"]:
        """Return the eigenvectors of C whose eigenvalue is below a threshold, kept after the first call.

        Raises:
            CollateralError: there is none.
        """
        if threshold not in self._null:
            values, vectors = torch.linalg.eigh(self.matrix.to(device))
            if not bool((values < threshold).any()):
                raise CollateralError(
                    f"no eigenvalue of the second moment is below nullspace_threshold {threshold:g} (the smallest is "
                    f"{float(values[0]):.3g}, the largest {float(values[-1]):.3g}); raise it"
                )
            self._null[threshold] = vectors[:, values < threshold]
        return self._null[threshold]


def windows(
    model: LanguageModel, texts: Iterable[str], tokens: int, window: int, batch: int
) -> Iterator[Int[Tensor, "rows window"]]:
    """Yield batches of full windows cut from the stream of all texts, `tokens` tokens in all."""
    # ASSUME: documents are joined into one stream and cut; a key's position in its window is not what matters.
    stream: list[int] = []
    left = tokens
    for text in texts:
        stream += model.tokenizer(text)["input_ids"]
        while len(stream) >= window * batch and left > 0:
            rows = min(batch, -(-left // window))
            yield torch.tensor(stream[: rows * window]).reshape(rows, window)
            stream, left = stream[rows * window :], left - rows * window
        if left <= 0:
            return
    rows = min(len(stream) // window, -(-left // window))
    if rows:
        yield torch.tensor(stream[: rows * window]).reshape(rows, window)


def measure_moment(
    model: LanguageModel,
    layer: int,
    texts: Iterable[str],
    tokens: int | None = None,
    window: int = 256,
    batch: int = 4,
) -> Moment:
    """Return C = 1/N sum k kᵀ over the down projection's inputs at a layer (ROME section 3.1, uncentred).

    The forward pass stops at the highest module that is needed. Products are float32 and are summed in
    float64.

    Args:
        model: the unedited model.
        layer: decoder layer.
        texts: plain text, a document each.
        tokens: budget N, rounded up to whole windows; None means 10 per dimension of the key (FastMEMIT,
            arXiv 2506.04226).
        window: tokens per row.
        batch: rows per forward pass.

    Raises:
        CollateralError: the text has fewer tokens than the key has dimensions: C would be singular.
    """
    down = model.down(layer)
    matrix = model.matrix(model.down_name(layer))
    d_in = matrix.shape[1]
    budget = tokens or 10 * d_in
    total = torch.zeros(d_in, d_in, dtype=torch.float64, device=matrix.device)
    seen = 0
    with tqdm(total=budget, desc=f"second moment, layer {layer}", unit=" tokens", disable=None) as progress:
        for rows in windows(model, texts, budget, window, batch):
            with torch.no_grad(), stop_at(down) as held:
                model.network.base_model(input_ids=rows.to(model.device), use_cache=False)
            keys = held["input"].reshape(-1, d_in).float()
            total += (keys.T @ keys).double()
            seen += len(keys)
            progress.update(len(keys))
    if seen < d_in:
        raise CollateralError(
            f"the text of the second moments has {seen} tokens in whole windows of {window}; layer {layer} needs "
            f"more than {d_in}: name a longer text in moments.text"
        )
    if seen < budget:
        log.warning("second moment of layer %d: the text has %d tokens of the %d wanted", layer, seen, budget)
    return Moment(total / seen, seen)


def write_moment(moment: Moment, path: Path, base_sha256: str, layer: int) -> None:
    """Write C as float32 with its token count, the model's identity and its own hash."""
    about = {"format": _FORMAT, "base_sha256": base_sha256, "layer": layer, "tokens": moment.tokens}
    write_tensors({"moment": moment.matrix.float().cpu()}, path, about)


def read_moment(path: Path) -> Moment:
    """Return the moment of a file.

    Raises:
        CollateralError: the file is missing, truncated, or its bytes are not what was written.
    """
    tensors, about = read_tensors(path, "a second moment")
    if about.get("format") != _FORMAT or "moment" not in tensors:
        raise CollateralError(f"{path}: not a second moment; delete it and run the workflow again")
    return Moment(tensors["moment"].double(), int(about["tokens"]))
