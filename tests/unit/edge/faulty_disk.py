"""A disk that loses power, fills up, turns read-only or fails to sync, at any call, for tests of what survives that.

It stands between ``os`` and the real files: what was written and not synced is cut off when the power goes, but for
a piece of any length. Nothing is really synced, which makes it quick.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class PowerCut(BaseException):
    """The machine is off: nothing after this call has any effect."""


class FaultyDisk:
    """Patches ``os`` while it is entered; only files under ``folder`` are touched by a power cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mode = ""
        """``full``, ``read-only``, ``broken`` (no sync, no cutting), or nothing for a sound disk."""
        self.calls_left: int | None = None
        """Changing calls until the power goes."""
        self.torn = 0.5
        """How much of what was not synced survives a power cut, as a share."""
        self.calls = 0
        """Changing calls until now."""
        self._is_off = False
        self._synced: dict[int, int] = {}
        self._real: dict[str, Callable[..., Any]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> FaultyDisk:
        names = ("fsync", "fdatasync", "write", "open", "rename", "replace", "unlink", "truncate", "ftruncate")
        for name in names:
            self._real[name] = getattr(os, name)
            self._stack.enter_context(patch.object(os, name, getattr(self, f"_{name}")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def cut_power(self) -> None:
        """Drop what was not synced, but for a torn piece of each file, and switch on again."""
        self.calls_left, self._is_off = None, False
        for path in self.folder.rglob("*"):
            if path.is_file():
                status = path.stat()
                synced = min(self._synced.get(status.st_ino, 0), status.st_size)
                left = synced + int((status.st_size - synced) * self.torn)
                self._real["truncate"](path, left)
                self._synced[status.st_ino] = left

    def sync(self, file: int) -> None:
        """Stands for fsync and fdatasync."""
        self._step()
        if self.mode == "broken":
            raise OSError(errno.EIO, "Input/output error")
        status = os.fstat(file)
        self._synced[status.st_ino] = status.st_size

    _fsync = _fdatasync = sync

    def _step(self) -> None:
        self.calls += 1
        if self.calls_left is not None:
            self.calls_left -= 1
            self._is_off = self._is_off or self.calls_left <= 0
        if self._is_off:
            raise PowerCut

    def _changing(self) -> None:
        self._step()
        if self.mode == "read-only":
            raise OSError(errno.EROFS, "Read-only file system")

    def _write(self, file: int, data: bytes | memoryview) -> int:
        part = bytes(data)[: max(1, int(len(data) * self.torn))]
        try:
            self._changing()
        except PowerCut:
            self._real["write"](file, part)
            raise
        if self.mode == "full":
            if len(part) < len(data):
                self._real["write"](file, part)
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self._real["write"](file, data))

    def _open(self, path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if flags & _WRITING and Path(path).is_relative_to(self.folder):
            self._changing()
        return int(self._real["open"](path, flags, mode, **more))

    def _rename(self, source: Any, target: Any, **more: Any) -> None:
        self._changing()
        self._forget(target)
        self._real["rename"](source, target, **more)

    def _replace(self, source: Any, target: Any, **more: Any) -> None:
        self._changing()
        if self.mode == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        self._forget(target)
        self._real["replace"](source, target, **more)

    def _unlink(self, path: Any, **more: Any) -> None:
        if os.path.exists(path):
            self._changing()
        self._forget(path)
        self._real["unlink"](path, **more)

    def _forget(self, path: Any) -> None:
        if os.path.exists(path):
            self._synced.pop(os.stat(path).st_ino, None)

    def _truncate(self, path: Any, size: int) -> None:
        self._changing()
        self._real["truncate"](path, size)

    def _ftruncate(self, file: int, size: int) -> None:
        self._changing()
        if self.mode == "broken":
            raise OSError(errno.EIO, "Input/output error")
        self._real["ftruncate"](file, size)
