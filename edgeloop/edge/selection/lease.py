"""What a node may have spent, on disk before it is spent, so that a kill or a power cut cannot spend an hour twice.

The file says how long each amount still counts. That time only runs while it is certain to run: while a process
counts, and between two processes of one boot, by the kernel's monotonic clock. The time of day may jump and a machine
without a battery wakes in the past, so over a reboot no time is taken to have passed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.edge.files import write_durably

_log = logging.getLogger(__name__)
#: Longest that an amount counts: the hour after the last second of its minute.
LONGEST = 3660.0
#: Stands for "nobody knows how much": more than any budget.
UNKNOWN = 1 << 60
#: (seconds that it still counts, bytes)
Entry = tuple[float, int]


class _Written(BaseModel):
    """The file. Nothing in it may be left out, for what is left out would be spent twice."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    boot: str | None
    clock: float
    written_at: float
    spent: list[tuple[float, Annotated[int, Field(ge=0)]]]


class LeaseFile:
    """One service's file. ``clock`` is monotonic seconds, ``wall`` the time of day (for people who read the file)."""

    def __init__(self, path: Path, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._wall = wall
        self._boot = boot_of(clock)
        self.entries = self._read()
        """What may have been spent when this process began."""

    def _read(self) -> list[Entry]:
        try:
            found = _Written.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())[:200]
            _log.error("a lease file is unreadable: its budget counts as spent for an hour", extra={"error": said})
            return [(LONGEST, UNKNOWN)]
        elapsed = self._elapsed(found)
        return [(min(LONGEST, left) - elapsed, size) for left, size in found.spent if left > elapsed]

    def _elapsed(self, found: _Written) -> float:
        """Seconds that have certainly passed since the file was written."""
        if self._boot is None or found.boot != self._boot:
            return 0.0
        return max(0.0, self._clock() - found.clock)

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace the file; raises OSError while the disk does not take it."""
        made = _Written(boot=self._boot, clock=self._clock(), written_at=self._wall(), spent=list(entries))
        write_durably(self._path, made.model_dump_json().encode())


def boot_of(clock: Callable[[], float]) -> str | None:
    """Names the boot of the kernel whose time ``clock`` counts; None where that is not known to outlive a process."""
    if clock is not time.monotonic:
        return None
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None
