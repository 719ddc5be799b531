"""Tensors that lie in a file and are in memory only while they are used.

They are read and written by plain calls and not mapped: pages of a mapped file count as the process's memory for as
long as the system sees no need to drop them.
"""

import os
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from collateral.errors import CollateralError
from collateral.io.resource_errors import shortage

_BLOCK = 2**20  # bytes that are hashed or copied at once


class _File:
    """An open file, which is closed when nothing refers to it any more."""

    def __init__(self, path: Path, descriptor: int):
        self._path, self._descriptor = path, descriptor
        weakref.finalize(self, os.close, descriptor)

    def fill(self, room: memoryview, offset: int) -> None:
        """Read as many bytes as there is room for.

        Raises:
            CollateralError: the file ends before, or cannot be read.
        """
        try:
            while room:
                count = os.preadv(self._descriptor, [room], offset)
                if count == 0:
                    raise CollateralError(
                        f"{self._path}: was cut off while it was in use; run the workflow again"
                    )
                room, offset = room[count:], offset + count
        except OSError as error:
            raise shortage(error, self._path) or error from error

    def put(self, data: memoryview, offset: int) -> None:
        """Write all bytes.

        Raises:
            CollateralError: the disk is full, or cannot be written.
        """
        try:
            while data:
                count = os.pwrite(self._descriptor, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            raise shortage(error, self._path) or error from error


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in a file, which stays open.

    Attributes:
        file: it is in.
        offset: of its first byte.
        shape: of the tensor.
        dtype: of its elements.
    """

    file: _File
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """The number of its bytes."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size

    def read(self) -> Tensor:
        """Return the tensor, in memory of its own."""
        raw = torch.empty(self.nbytes, dtype=torch.uint8)
        self.file.fill(raw.numpy().data, self.offset)
        return raw.view(self.dtype).reshape(self.shape)

    def blocks(self) -> Iterator[memoryview]:
        """Yield its bytes in order, a part at a time; each part is void when the next is asked for."""
        room = memoryview(bytearray(min(_BLOCK, self.nbytes)))
        for begun in range(0, self.nbytes, _BLOCK):
            part = room[: min(_BLOCK, self.nbytes - begun)]
            self.file.fill(part, self.offset + begun)
            yield part


def opened(path: Path) -> _File:
    """Return a file that is there, open for reading.

    Raises:
        OSError: it cannot be opened.
    """
    return _File(Path(path), os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a contiguous tensor in main memory."""
    return tensor.detach().flatten().view(torch.uint8).numpy().data


class Scratch:
    """A nameless file beside the one that a job will write, gone with the process however it ends.

    A tensor that nothing refers to any more leaves its place to the next of its size.
    """

    def __init__(self, beside: Path):
        """Take note of where; the file is made with the first tensor.

        Args:
            beside: the file that the job will write: there is room for its like.
        """
        self._beside = Path(beside)
        self._file: _File | None = None
        self._end = 0
        self._free: dict[int, list[int]] = defaultdict(list)

    def keep(self, tensor: Tensor) -> Stored:
        """Return a tensor that lies in the file.

        Raises:
            CollateralError: the disk is full, read-only or not permitted.
        """
        values = tensor.detach().contiguous()
        places = self._free[values.nbytes]
        if places:
            offset = places.pop()
        else:
            offset, self._end = self._end, self._end + values.nbytes
        file = self._file = self._file or self._made()
        file.put(bytes_of(values), offset)
        kept = Stored(file, offset, tuple(values.shape), values.dtype)
        weakref.finalize(kept, places.append, offset)
        return kept

    def _made(self) -> _File:
        folder = self._beside.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # with the name of a torn write, which the next writer removes, should the process end at this moment
            descriptor, name = tempfile.mkstemp(".partial", f".{self._beside.name}.", folder)
            Path(name).unlink()
        except OSError as error:
            raise shortage(error, self._beside) or error from error
        return _File(self._beside, descriptor)
