"""One append-only file whose writers share fsyncs: a disk appends thousands of times a second, and syncs few."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from edgeloop.edge.files import sync_folder


class Log:
    """An open log. ``append`` may be called from many threads and returns when the bytes are on the disk."""

    def __init__(self, path: Path, *, fsync: Callable[[int], None] = os.fsync) -> None:
        self.path = path
        self._fsync = fsync
        self._state = threading.Condition()
        is_new = not path.exists()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if is_new:
            sync_folder(path.parent)
        self.size = os.fstat(self._file).st_size
        self._synced = self.size
        self._syncing = False
        self.broken = False
        """A sync failed: what the disk holds is unknown, nothing more is written here."""

    def write(self, data: bytes) -> int:
        """Append; returns the position up to which :meth:`sync` makes it durable. All or nothing.

        Raises:
            OSError: the disk is full or read-only; the file is as it was.
        """
        with self._state:
            try:
                self._write_all(data)
            except OSError:
                self._take_back()
                raise
            self.size += len(data)
            return self.size

    def _write_all(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]

    def _take_back(self) -> None:
        try:
            os.ftruncate(self._file, self.size)
        except OSError:
            self.broken = True

    def sync(self, position: int) -> None:
        """Wait until everything up to ``position`` is durable; one waiting thread syncs for all.

        Raises:
            OSError: the disk failed; the bytes may or may not be there.
        """
        with self._state:
            while self._synced < position:
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
            self.broken = self.broken or failed
            self._synced = self._synced if failed else target
            self._state.notify_all()

    def close(self) -> None:
        """Make everything durable and close; raises OSError as :meth:`sync` does, closed all the same."""
        try:
            self.sync(self.size)
        finally:
            os.close(self._file)
