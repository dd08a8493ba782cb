"""How a worker's process holds its memory: what a step has freed, the next one takes again.

By default glibc gives large blocks back to the system at once, and every step asks for them anew, page by page. For a
cohort of residual networks that has been half of a step's time, or nothing, by how the heap happened to lie.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEPT = 512 * 2**20
_LARGEST = 32 * 2**20
"""What glibc takes at most."""


def keep_freed_memory() -> bool:
    """Have this process keep up to 512 MiB that it has freed, and allocate blocks of up to 32 MiB from there.

    Whoever has set one of glibc's `MALLOC_…_` variables has decided otherwise.

    Returns:
        Whether it does; only glibc has this, so not everywhere.
    """
    if not sys.platform.startswith("linux") or any(
        os.environ.get(name) for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(library.mallopt(_TRIM_THRESHOLD, _KEPT))
