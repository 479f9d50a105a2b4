"""One append-only file whose writers share syncs: a disk appends thousands of times a second, and syncs few."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgeloop.edge.files import sync

#: fdatasync makes the bytes and the length durable and leaves out times, which nobody reads.
datasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Log:
    """A new log, open for writing. Methods may be called from many threads."""

    def __init__(self, path: Path, *, fsync: Callable[[int], None] = datasync) -> None:
        self.path = path
        self._fsync = fsync
        self._state = threading.Condition()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            sync(path.parent)
        except OSError:
            os.close(self._file)
            with suppress(OSError):
                path.unlink()
            raise
        self.size = 0
        self.durable = 0
        """Bytes that are known to be on the disk."""
        self._syncing = False
        self.broken = False
        """The disk failed: what it holds after :attr:`durable` is unknown, nothing more is written here."""

    def write(self, data: bytes) -> int:
        """Append; returns the position up to which :meth:`sync` makes it durable. All or nothing.

        Raises:
            OSError: the disk is full or read-only; the file is as it was.
        """
        with self._state:
            if self.broken:
                raise OSError(f"{self.path.name} could not be synced")
            try:
                self._write_all(data)
            except OSError:
                self._cut(self.size)
                raise
            self.size += len(data)
            return self.size

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]

    def _cut(self, size: int) -> None:
        try:
            os.ftruncate(self._file, size)
            self.size = size
        except OSError:
            self.broken = True

    def sync(self, position: int) -> None:
        """Wait until everything up to ``position`` is durable; one waiting thread syncs for all.

        Raises:
            OSError: the disk failed; the bytes may or may not be there.
        """
        with self._state:
            while self.durable < position:
                if self.broken:
                    raise OSError(f"{self.path.name} could not be synced")
                if self._syncing:
                    self._state.wait()
                else:
                    self._lead()

    def _lead(self) -> None:
        """Sync with the lock released meanwhile."""
        self._syncing, target = True, self.size
        self._state.release()
        failed = True
        try:
            self._fsync(self._file)
            failed = False
        finally:
            self._state.acquire()
            self._syncing = False
            if failed:  # nobody was told of what follows: it must not come back as if it had been taken
                self.broken = True
                self._cut(self.durable)
            else:
                self.durable = max(self.durable, target)
            self._state.notify_all()

    def close(self) -> None:
        """Make everything durable and close; raises OSError as :meth:`sync` does, closed all the same."""
        try:
            self.sync(self.size)
        finally:
            os.close(self._file)
