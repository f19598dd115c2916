"""The memory of this process: how much it may hold, and what its allocator does with what is freed."""

from __future__ import annotations

import ctypes
import resource
import sys

__all__ = ["keep_memory", "limit_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def limit_memory(data_bytes: int | None) -> None:
    """Let this process hold at most so many bytes of data; None: as many as its parent may.

    RLIMIT_DATA counts what is allocated. RLIMIT_AS would also count address space that allocators reserve and never
    touch (a GiB by mimalloc). Beyond it, Python, numpy and Arrow alike raise `MemoryError`. Only Linux enforces it.
    """
    if not sys.platform.startswith("linux"):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard if data_bytes is None else data_bytes
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def keep_memory() -> None:
    """Have malloc keep what is freed for the next batch of records.

    By default it returns large arrays to the system and takes them again, page fault by page fault: a seventh of the
    time of an import. The process holds no more for it than at its peak. glibc only.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 512 << 20)
