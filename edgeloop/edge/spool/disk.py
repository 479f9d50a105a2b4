"""Whether the disk under the spool takes writes: one that does not is left alone for a while, then asked again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgeloop.edge.files import write_durably
from edgeloop.errors import EdgeloopError

#: After the disk refused, wait this long before it is tried again, in seconds.
_PAUSE = 5.0
#: What a disk must take before it counts as mended: about one sample.
_PROBE_BYTES = 64 * 1024


class SpoolFailed(EdgeloopError):
    """The disk under the spool does not take more: full, read-only or broken."""


class Disk:
    """The health of the disk of one folder. Methods may be called from any thread."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_at: float | None = None
        self.last_error: str | None = None
        """What it said when it failed; None once it took something again."""

    @property
    def accepting(self) -> bool:
        """False from a failure until the disk took something again."""
        return self._failed_at is None

    @property
    def is_paused(self) -> bool:
        """Whether it is too early to try again."""
        at = self._failed_at
        return at is not None and self._clock() - at < _PAUSE

    def check(self) -> None:
        """Raise SpoolFailed while the disk is left alone."""
        if self.is_paused:
            raise SpoolFailed(f"the spool's disk failed ({self.last_error}): free or mend it")

    def failed(self, error: OSError) -> SpoolFailed:
        """Note a failure; returns what to raise."""
        with self._lock:
            self.last_error = f"spool: {error}"
            self._failed_at = self._clock()
        return SpoolFailed(f"the spool's disk failed ({error}): free or mend it")

    def took(self) -> None:
        """Note that the disk took a write."""
        if self._failed_at is not None:
            with self._lock:
                self._failed_at, self.last_error = None, None

    def probe(self) -> None:
        """After a failure and a pause, see whether the disk takes about a sample."""
        if self.accepting or self.is_paused:
            return
        path = self._folder / "probe"
        try:
            write_durably(path, bytes(_PROBE_BYTES))
            path.unlink()
        except OSError as error:
            self.failed(error)
            with suppress(OSError):
                path.unlink(missing_ok=True)
        else:
            self.took()
