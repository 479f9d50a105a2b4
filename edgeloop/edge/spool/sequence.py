"""A number for each sample of a node that never comes twice, so that the cloud sees what is missing between two.

Numbers are taken from a lease that is written down before any of it is used. A crash loses what is left of the
lease: there are gaps, and no number goes back.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgeloop.edge.files import write_durably

_log = logging.getLogger(__name__)
_LEASE = 1000


class Sequence:
    """The numbers of one node. ``take`` may be called from any thread."""

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self._wall = wall
        self._lock = threading.Lock()
        self._next: int | None = None
        self._leased = 0
        self._seen = -1

    def seen(self, number: object) -> None:
        """Start above ``number``, which a record on the disk bears; anything but an int is passed over."""
        if isinstance(number, int) and not isinstance(number, bool):
            self._seen = max(self._seen, number)

    def take(self) -> int:
        """The next number.

        Raises:
            OSError: a new lease could not be written; no number is given.
        """
        with self._lock:
            number = self._reserved()
            self._next = number + 1
            return number

    def reserve(self) -> None:
        """Write down a lease, if none is left; raises OSError as :meth:`take` does."""
        with self._lock:
            self._reserved()

    def _reserved(self) -> int:
        if self._next is None:
            self._next = max(self._read(), self._seen + 1)
        if self._next >= self._leased:
            self._write(self._next + _LEASE)
            self._leased = self._next + _LEASE
        return self._next

    def close(self) -> None:
        """Give back what is left of the lease, where the disk takes it."""
        with self._lock, suppress(OSError):
            if self._next is not None and self._next < self._leased:
                self._write(self._next)
                self._leased = self._next

    def _read(self) -> int:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return 0
        number, _, check = text.partition(b" ")
        if number.isdigit() and check.strip() == _check(number):
            return int(number)
        # Microseconds since 1970 are far above any count of samples.
        _log.error("the sequence file is damaged: numbers go on from the time", extra={"file": self._path.name})
        return int(self._wall() * 1_000_000)

    def _write(self, number: int) -> None:
        text = b"%d" % number
        write_durably(self._path, text + b" " + _check(text) + b"\n")


def _check(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)
