"""The sealed logs of the spool in the order of their age, with the totals that a bound is kept by.

A log that is being sent, or may have been, is pinned: what the store has of it is what lies here, so it is
not made smaller any more.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgeloop.edge.spool.tiers import Tiers

Kind = Literal["captures", "labels"]
Key = tuple[Kind, str]


@dataclass(eq=False)
class Shelved:
    """One sealed log."""

    path: Path
    size: int
    """Its bytes that count; what the file may hold after them was never acknowledged."""
    tiers: Tiers
    attempted: bool = False
    """It was offered to the store, which may have it."""
    busy: bool = False
    """A thread is sending or rewriting it."""
    noted: bool = False
    """Its damage has been set aside."""
    is_named: bool = True
    """Its name is sure; one that was sealed just now may still have its old name after a power cut."""
    tail: int = 0
    """Bytes after ``size`` that the disk did not let go."""

    @property
    def key(self) -> Key:
        """Kind and service of its records."""
        return key_of(self.path)

    @property
    def is_pinned(self) -> bool:
        """Whether it must stay as it is."""
        return self.attempted or self.busy


@dataclass
class Shelf:
    """All sealed logs. Not locked: the spool's lock is held around every call."""

    logs: dict[Shelved, None] = field(default_factory=dict)
    tiers: Tiers = field(default_factory=Tiers)
    size: int = 0
    tails: int = 0

    def __iter__(self) -> Iterator[Shelved]:
        """From the oldest."""
        return iter(self.logs)

    def add(self, log: Shelved) -> None:
        """Put one behind the others."""
        self.logs[log] = None
        log.tail = _tail(log)
        self._count(log, 1)

    def remove(self, log: Shelved) -> None:
        """Take one away."""
        if log in self.logs:
            del self.logs[log]
            self._count(log, -1)

    def recount(self, log: Shelved, size: int, tiers: Tiers) -> None:
        """Note that a log was rewritten; it keeps its place."""
        self._count(log, -1)
        log.size, log.tiers = size, tiers
        log.tail = _tail(log)
        self._count(log, 1)

    def _count(self, log: Shelved, sign: int) -> None:
        self.tiers.merge(log.tiers, sign)
        self.size += sign * log.size
        self.tails += sign * log.tail

    def next_to_send(self, but: Container[Key] = ()) -> Shelved | None:
        """The oldest log that nobody works on, of other kinds and services than ``but``.

        Those that wait behind one that was refused are not tried: what was never offered may still be dropped.
        """
        return next((log for log in self.logs if not log.busy and log.key not in but), None)


def _tail(log: Shelved) -> int:
    try:
        return max(log.path.stat().st_size - log.size, 0)
    except OSError:
        return 0


def key_of(path: Path) -> Key:
    """Kind and service of a log by its name, ``kind.service.number.state``."""
    kind, service = path.name.split(".")[:2]
    return ("captures" if kind == "captures" else "labels"), service


def number_of(path: Path) -> int:
    """The number of a log by its name; -1 for a name that is none of ours."""
    parts = path.name.split(".")
    return int(parts[2]) if len(parts) == 4 and parts[2].isdigit() else -1
