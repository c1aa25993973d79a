"""Memory that a scoring process frees stays with it.

Every batch makes and frees arrays of megabytes. By default glibc and Arrow give them back to the
system each time, which then has to clear new pages: in a virtual machine 3.5 us for each 4 KiB
(benchmarks/reading.py, docs/decisions.md), more than it takes to fill them.
"""

from __future__ import annotations

import ctypes

from batchinfer.arrow import pa

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT_BYTES = 256 << 20  # larger blocks, and what is free beyond that, go back as ever


def keep_freed_memory() -> None:
    """Set it for this process; where the C library has no `mallopt`, nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    pa.set_memory_pool(pa.system_memory_pool())
