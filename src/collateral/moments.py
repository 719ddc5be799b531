"""Streaming second moments of the keys, C = E[k kᵀ], one file a layer."""

import logging
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


@dataclass(frozen=True)
class Moment:
    """Second moment of one layer's keys.

    Attributes:
        matrix: C (float64).
        tokens: number of tokens that it is the mean over.
    """

    matrix: Float[Tensor, "d_in d_in"]
    tokens: int
    _cholesky: dict[float, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def solve(self, key: Float[Tensor, " d_in"], ridge: float = 0.0) -> Float[Tensor, " d_in"]:
        """Return (C + ridge · mean(diag C) · I)⁻¹ key, by a Cholesky factor that is kept.

        Raises:
            CollateralError: the matrix is not positive definite.
        """
        if ridge not in self._cholesky:
            shift = ridge * self.matrix.diagonal().mean()
            factor, failed = torch.linalg.cholesky_ex(
                self.matrix
                + shift * torch.eye(len(self.matrix), dtype=torch.float64, device=self.matrix.device)
            )
            if failed:
                raise CollateralError(
                    f"the second moment over {self.tokens} tokens is not positive definite; raise moments.tokens "
                    f"(at least 10 per dimension, here {10 * len(self.matrix)}) or set mom2_ridge, e.g. 0.01"
                )
            self._cholesky[ridge] = factor
        solved = torch.cholesky_solve(key.double()[:, None], self._cholesky[ridge])[:, 0]
        return solved.to(key.dtype)


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
    d_in = model.matrix(model.down_name(layer)).shape[1]
    budget = tokens or 10 * d_in
    total = torch.zeros(d_in, d_in, dtype=torch.float64, device=model.device)
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
