"""Memory that this process has freed and its libraries have kept."""

import ctypes
import gc

import pyarrow as pa


def give_back() -> None:
    """Return freed memory to the system: that of Arrow, and of the C library where it can (glibc).

    glibc keeps what is freed below its highest block in use: after a tokenizer's JSON, or a link of a chain, a good
    part of the process. Parts of a model that refer to each other are collected first.
    """
    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
