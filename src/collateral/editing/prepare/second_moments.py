"""Streaming second moments of the keys, C = E[k kᵀ]: one pass and one file for all layers that a method needs."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from collateral.editing.prepare.cholesky import Triangle, add_upper, factorize, mirror
from collateral.editing.state import copy_tensor
from collateral.errors import CollateralError
from collateral.models.hooks import listen_to_input, stop_at
from collateral.models.language_model import LanguageModel
from collateral.models.tensor_file import read_about, read_part, write_parts

log = logging.getLogger(__name__)

_FORMAT = "collateral-moments/2"
_KIND = "second moments"


@dataclass(frozen=True)
class Moment:
    """Second moment of one layer's keys.

    Attributes:
        given: C, or what reads it, so that it is in memory only while it is used.
        tokens: number of tokens that it is the mean over.
    """

    given: Float[Tensor, "d_in d_in"] | Callable[[], Float[Tensor, "d_in d_in"]]
    tokens: int
    _made: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)
    _cholesky: dict[tuple[float, str], Triangle] = field(default_factory=dict, repr=False, compare=False)

    @property
    def matrix(self) -> Float[Tensor, "d_in d_in"]:
        """C (float64)."""
        return self._raw().double()

    def _raw(self) -> Float[Tensor, "d_in d_in"]:
        return self.given if isinstance(self.given, Tensor) else self.given()

    def ridged(self, ridge: float, device: torch.device | str = "cpu") -> Float[Tensor, "d_in d_in"]:
        """Return C + ridge · mean(diag C) · I on a device: a tensor of its own, which lies by columns (float64)."""
        raw = self._raw()
        whole = torch.empty(raw.shape, dtype=torch.float64, device=device).T
        whole.copy_(raw)
        diagonal = whole.diagonal()
        diagonal += ridge * diagonal.mean()
        return whole

    def solve(self, keys: Float[Tensor, "..."], ridge: float = 0.0) -> Float[Tensor, "..."]:
        """Return (C + ridge · mean(diag C) · I)⁻¹ keys, by a Cholesky factor that is kept.

        Raises:
            CollateralError: the matrix is not positive definite.
        """
        known = (ridge, str(keys.device))
        if known not in self._cholesky:
            self._cholesky[known] = Triangle.of(self._factor(ridge, keys.device))
        columns = keys.double().reshape(len(keys), -1)
        solved = self._cholesky[known].solve(columns)
        return solved.reshape(keys.shape).to(keys.dtype)

    def _factor(self, ridge: float, device: torch.device | str) -> Float[Tensor, "d_in d_in"]:
        return factorize(self.ridged(ridge, device), f"second moment over {self.tokens} tokens")

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
        known = f"root/{ridge}/{device}"
        if known not in self._made:
            factor = self._factor(ridge, device)
            inverse = torch.eye(
                len(factor), dtype=factor.dtype, device=device
            ).T  # by columns: solved where it lies
            torch.linalg.solve_triangular(factor, inverse, upper=False, out=inverse)
            self._made[known] = inverse.T
            del factor, inverse
        root = copy_tensor(self._made[known], torch.device(device))
        root /= math.sqrt(weight)
        return root

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
        known = f"null/{threshold}/{device}"
        if known not in self._made:
            values, vectors = torch.linalg.eigh(self.matrix.to(device))
            if not bool((values < threshold).any()):
                raise CollateralError(
                    f"no eigenvalue of the second moment is below nullspace_threshold {threshold:g} (the smallest is "
                    f"{float(values[0]):.3g}, the largest {float(values[-1]):.3g}); raise it"
                )
            self._made[known] = vectors[:, values < threshold]
            del vectors
        return self._made[known]


def cut_windows(
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


def measure_moments(
    model: LanguageModel,
    layers: Iterable[int],
    texts: Iterable[str],
    tokens: int | None = None,
    window: int = 256,
    batch: int = 4,
) -> dict[int, Moment]:
    """Return C = 1/N sum k kᵀ over the down projection's inputs at each layer (ROME section 3.1, uncentred).

    One forward pass serves all layers and stops at the highest down projection that is needed. Products are float32
    and are summed in float64; C is symmetric, so that only its upper half is computed.

    Args:
        model: the unedited model.
        layers: decoder layers, at least one.
        texts: plain text, a document each.
        tokens: budget N, rounded up to whole windows; None means 10 per dimension of the key (FastMEMIT,
            arXiv 2506.04226).
        window: tokens per row.
        batch: rows per forward pass.

    Raises:
        CollateralError: the text has fewer tokens than the key has dimensions: C would be singular.
    """
    sums: dict[int, Tensor] = {}
    for layer in sorted(set(layers)):
        matrix = model.matrix(model.down_name(layer))
        sums[layer] = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=torch.float64, device=matrix.device)
    d_in = max(len(total) for total in sums.values())
    budget = tokens or 10 * d_in
    seen = 0
    with ExitStack() as hooks:
        for layer, total in sums.items():
            hooks.enter_context(listen_to_input(model.down(layer), partial(add_upper, total)))
        progress = hooks.enter_context(tqdm(total=budget, desc=_KIND, unit=" tokens", disable=None))
        for rows in cut_windows(model, texts, budget, window, batch):
            with torch.no_grad(), stop_at(model.down(max(sums))):
                model.network.base_model(input_ids=rows.to(model.device), use_cache=False)
            seen += rows.numel()
            progress.update(rows.numel())
    if seen < d_in:
        raise CollateralError(
            f"the text of the second moments has {seen} tokens in whole windows of {window}; keys of {d_in} "
            "dimensions need more tokens than that: name a longer text in moments.text"
        )
    if seen < budget:
        log.warning("second moments: the text has %d tokens of the %d wanted", seen, budget)
    for total in sums.values():
        mirror(total.div_(seen))
    return {layer: Moment(total, seen) for layer, total in sums.items()}


def write_moments(moments: Mapping[int, Moment], path: Path, base_sha256: str) -> None:
    """Write C of each layer as float32 with token counts, the model's identity, and a hash of each."""
    counts = {str(layer): moment.tokens for layer, moment in moments.items()}
    about = {"format": _FORMAT, "base_sha256": base_sha256, "tokens": counts}
    matrices = {str(layer): moment.matrix.float() for layer, moment in moments.items()}
    write_parts(matrices, path, about)


def read_layers(path: Path) -> list[int]:
    """Return the layers whose moments a file has.

    Raises:
        CollateralError: the file is missing, truncated, or its record is not what was written.
    """
    about = read_about(path, _KIND)
    if about.get("format") != _FORMAT:
        raise CollateralError(f"{path}: not {_KIND}; delete it and run the workflow again")
    return sorted(int(layer) for layer in about["tokens"])


def read_moment(path: Path, layer: int) -> Moment:
    """Return the moment of one layer of a file, checked; it is read again when it is used, the others are not read.

    Args:
        path: the file.
        layer: the layer's number.

    Raises:
        CollateralError: the file is missing, truncated, or its bytes are not what was written.
    """
    if layer not in read_layers(path):
        raise CollateralError(f"{path}: has no layer {layer}; delete it and run the workflow again")
    _, about = read_part(path, _KIND, str(layer))
    tokens = int(about["tokens"][str(layer)])
    return Moment(lambda: read_part(path, _KIND, str(layer))[0], tokens)


def check_moments(path: Path) -> None:
    """Read all moments of a file, one after another.

    Raises:
        CollateralError: as for `read_moment`.
    """
    for layer in read_layers(path):
        read_moment(path, layer)
