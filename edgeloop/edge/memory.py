"""Keeps a node within the memory its owner gave it: a model that would not fit is refused before the others suffer.

What a model costs is not known before it is loaded, so the budget asks twice: before the load with an estimate from
the size of its layers, and after it with what the process really holds.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

from edgeloop.clients.lending import usable_cores
from edgeloop.errors import EdgeloopError

_MIB = 1024 * 1024
_STATM = Path("/proc/self/statm")
#: Resident bytes of an interpreter: its own packed copy of the weights, and its tensors. Measured on MobileNet and
#: Xception, int8 and float32; ONNX Runtime stays below it.
_PACKED = 1.15
_TENSORS = 3 * _MIB


class ModelTooBig(EdgeloopError):
    """A model does not fit into the memory that this node may use."""


def resident_bytes() -> int | None:
    """Resident memory of this process in bytes; None where the system does not tell (anything but Linux)."""
    if sys.platform != "linux":
        return None
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def estimate(layer_bytes: int, interpreters: int) -> int:
    """Resident bytes that a model of so many bytes of layers will need, about."""
    return layer_bytes + interpreters * (round(layer_bytes * _PACKED) + _TENSORS)


def give_back_unused() -> None:
    """Give freed memory back to the system, where the C library can: a model that was replaced leaves holes that
    the process would otherwise keep. Takes some milliseconds, without Python's lock."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class MemoryBudget:
    """The memory that a node's process may hold, in MiB; None is no limit.

    Resident memory is what counts, once a load is over: while a model is being read the process may hold more.
    Call :meth:`check` before a model is loaded and :meth:`confirm` after, before it serves; on
    :class:`ModelTooBig` drop the model. Models already in service are never touched.
    """

    def __init__(
        self,
        limit_mb: int | None,
        *,
        resident: Callable[[], int | None] = resident_bytes,
        give_back: Callable[[], None] = give_back_unused,
    ) -> None:
        self.limit_mb = limit_mb
        self._resident = resident
        self._give_back = give_back

    def check(self, model: str, layer_bytes: int, interpreters: int | None = None) -> None:
        """Before the load: raise ModelTooBig if ``layer_bytes`` of layers would not fit beside what is held now.

        ``interpreters`` is what the model will be loaded with; one per core if None.
        """
        self._refuse_above(model, estimate(layer_bytes, interpreters or usable_cores()))

    def confirm(self, model: str) -> None:
        """After the load: raise ModelTooBig if the process now holds more than the limit."""
        self._give_back()
        self._refuse_above(model, 0)

    def _refuse_above(self, model: str, more: int) -> None:
        used = self._resident()
        if self.limit_mb is None or used is None or used + more <= self.limit_mb * _MIB:
            return
        self._give_back()
        used = self._resident() or used
        if used + more <= self.limit_mb * _MIB:
            return
        needs = f"needs about {more / _MIB:.0f} MB beside" if more else "is loaded and the node holds"
        raise ModelTooBig(
            f"model {model} {needs} {used / _MIB:.0f} MB in use, over the limit of {self.limit_mb} MB: "
            f"raise memory_mb in node.yaml or release a smaller model"
        )
