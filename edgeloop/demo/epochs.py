"""Epochs of a training that runs in a flow, shown where a person waits for it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

#: Seconds between two looks at a run's log; Prefect writes it every two seconds or so.
PACE = 2.0
_EPOCH = re.compile(r"epoch \d+/\d+ ")


class EpochLines:
    """The lines of a run's log that tell of an epoch, each shown once."""

    def __init__(
        self, log: Callable[[], list[str]], show: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read lines from ``log``, oldest first, and hand those of epochs to ``show``."""
        self._log, self._show, self._clock = log, show, clock
        self._shown = 0
        self._next = clock()

    def look(self) -> None:
        """Show what is new, unless the last look was a moment ago."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + PACE
        lines = [line for line in self._log() if _EPOCH.match(line)]
        for line in lines[self._shown :]:
            self._show(line)
        self._shown = max(self._shown, len(lines))
