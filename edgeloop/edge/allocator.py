"""Tells the C library to keep no large freed blocks: a node decodes pictures in many threads, each with its own heap.

glibc learns from what is freed: after one picture of 27 MB every thread's heap may keep up to twice as much for the
next one, so that a few large pictures leave a node several hundred MB larger for ever. See mallopt(3), "dynamic mmap
threshold": setting the thresholds also fixes them.
"""

from __future__ import annotations

import ctypes
import sys

#: Freed blocks of this many bytes go back to the system; smaller ones are quicker to keep.
LARGE = 512 * 1024
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def give_back_large_blocks() -> None:
    """From now on and in the whole process, where the C library is glibc; elsewhere nothing."""
    adjust = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if adjust is not None:
        adjust(_MMAP_THRESHOLD, LARGE)
        adjust(_TRIM_THRESHOLD, LARGE)
