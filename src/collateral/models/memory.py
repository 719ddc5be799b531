"""Memory that this process has freed and its libraries have kept, or would keep."""

import ctypes
import gc
from pathlib import Path

import pyarrow as pa
import torch


def give_back() -> None:
    """Return freed memory to the system: that of Arrow, and of the C library where it can (glibc).

    glibc keeps what is freed below its highest block in use: after a tokenizer's JSON, or a link of a chain, a good
    part of the process. Parts of a model that refer to each other are collected first.
    """
    gc.collect()
    trim()


def trim() -> None:
    """Return freed memory to the system without a search for more, which takes a millisecond or two."""
    pa.default_memory_pool().release_unused()
    _free_buffers()
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def _free_buffers() -> None:
    """Free the work space that MKL's matrix products keep, where torch has MKL."""
    library = Path(torch.__file__).parent / "lib/libtorch_cpu.so"
    free = getattr(ctypes.CDLL(str(library)), "mkl_serv_free_buffers", None) if library.exists() else None
    if free is not None:
        free()


_MMAP_THRESHOLD = -3  # of glibc's mallopt
_LARGE = 65536  # bytes


def keep_little() -> None:
    """Let the C library return every large block to the system as soon as it is freed (glibc).

    Left to itself, glibc keeps up to 64 MiB of what a step of an optimisation has freed, in pieces that the next step
    only partly fills. It holds for the whole process.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
