"""All logs of a spool under one lock: those that are being written, the sealed ones, and what they hold together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.edge.files import sync
from edgeloop.edge.spool.contents import measure
from edgeloop.edge.spool.log import Log
from edgeloop.edge.spool.recovery import find_logs
from edgeloop.edge.spool.shelf import Key, Shelf, Shelved, number_of
from edgeloop.edge.spool.tiers import Tiers, total


@dataclass(eq=False)
class Opened:
    """A log that is being written."""

    log: Log
    since: float
    """Of the spool's clock."""
    tiers: Tiers = field(default_factory=Tiers)


class Ledger:
    """The logs of one spool. Its lock is held by whoever calls a method, unless that says otherwise."""

    def __init__(self, folder: Path, note: Callable[[OSError], object], fsync: Callable[[int], None]) -> None:
        self._folder = folder
        self._note = note
        self._fsync = fsync
        self._number = 0
        self.lock = threading.RLock()
        self.open: dict[Key, Opened] = {}
        self.shelf = Shelf()
        self.left: dict[Path, int] = {}
        """Logs that the store has and the disk does not let go, with their sizes."""

    @property
    def count(self) -> int:
        """Records that wait."""
        return sum(o.tiers.count for o in self.open.values()) + self.shelf.tiers.count

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(o.log.size for o in self.open.values()) + self.shelf.size

    @property
    def used(self) -> int:
        """Bytes on the disk."""
        return self.size + self.shelf.tails + sum(self.left.values())

    def counts(self, service: str) -> tuple[int, int]:
        """(records, bytes) of one service that wait."""
        parts = [(o.tiers.count, o.log.size) for key, o in self.open.items() if key[1] == service]
        parts += [(s.tiers.count, s.size) for s in self.shelf if s.key[1] == service]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    def load(self, logs: list[Shelved]) -> None:
        """Take in what an earlier process left. Its open logs are sealed: a disk that took no rename may hide that
        they were offered to the store, so nothing is added to them.
        """
        self._number = max([self._number, *map(number_of, find_logs(self._folder))])
        for log in logs:
            try:
                self._make_sure(log)
            except OSError as error:
                self._note(error)
            self.shelf.add(log)

    def _make_sure(self, log: Shelved) -> None:
        """Sync what a killed process may have left in memory only; whoever sends it again is told that it is here."""
        sync(log.path)
        if log.path.suffix == ".open":
            path = log.path.with_suffix(".sealed")
            log.path.rename(path)
            log.path = path
            sync(self._folder)

    def write(self, key: Key, tier: int, data: bytes, now: float) -> tuple[Log, int]:
        """Append to the open log of ``key``; returns what to sync and up to where.

        Raises:
            OSError: the disk does not take it; what was there is as it was.
        """
        opened = self.open.get(key)
        if opened is None or opened.log.broken:
            opened = self._renew(key, now)
        position = opened.log.write(data)
        opened.tiers.add(tier, len(data))
        return opened.log, position

    def _renew(self, key: Key, now: float) -> Opened:
        if key in self.open:
            self.seal(key)
        self._number += 1
        path = self._folder / f"{key[0]}.{key[1]}.{self._number:012d}.open"
        self.open[key] = Opened(Log(path, fsync=self._fsync), now)
        return self.open[key]

    def seal_due(self, is_due: Callable[[Opened], bool]) -> None:
        """Seal the open logs that are due. Called without the lock: a slow card syncs while others go on."""
        with self.lock:
            due = [opened for opened in self.open.values() if is_due(opened)]
        for opened in due:
            self.sync_ahead(opened)
        with self.lock:
            sealed = [self.seal(key) for key, opened in list(self.open.items()) if opened in due]
        for log in sealed:
            try:
                self.make_name_sure(log)
            except OSError as error:
                self._note(error)

    def sync_ahead(self, opened: Opened) -> None:
        """Sync a log that is about to be sealed, which then has little to do; called without the lock."""
        with suppress(OSError):  # noted when it is sealed
            opened.log.sync(opened.log.size)

    def make_name_sure(self, log: Shelved) -> None:
        """Make the name of a sealed log durable; called without the lock, and before the log is rewritten.

        Raises:
            OSError: the disk does not take it.
        """
        if not log.is_named:
            sync(self._folder)
            log.is_named = True

    def seal(self, key: Key) -> Shelved:
        """Close the open log of ``key`` and put it on the shelf; where the disk fails, as much of it as is sure.

        Its name is made sure later. Until then a power cut leaves the same log under its old name, or its new one.
        """
        opened = self.open.pop(key)
        log, path = opened.log, opened.log.path.with_suffix(".sealed")
        try:
            log.close()
        except OSError as error:
            self._note(error)
        try:
            log.path.rename(path)
        except OSError as error:  # under its old name it is found again at the next start
            self._note(error)
            path = log.path
        shelved = Shelved(path, log.durable, opened.tiers, is_named=path == log.path)
        if log.broken:
            measure(shelved)
        self.shelf.add(shelved)
        return shelved

    def droppable(self) -> Tiers:
        """What may be dropped: everything in logs that are not pinned."""
        tiers = total([self.shelf.tiers, *(o.tiers for o in self.open.values())])
        for log in self.shelf:
            if log.is_pinned:
                tiers.merge(log.tiers, -1)
        return tiers

    def droppable_logs(self) -> Iterator[Shelved | Opened]:
        """The logs that may lose samples, from the oldest; open ones are the youngest."""
        yield from (log for log in self.shelf if not log.is_pinned)
        yield from sorted(self.open.values(), key=lambda opened: number_of(opened.log.path))

    def claim(self, log: Shelved | Opened) -> Shelved | None:
        """Seal the log if it is open, and mark it as worked on; None if it is not to be had any more."""
        if isinstance(log, Opened):
            key = next((key for key, opened in self.open.items() if opened is log), None)
            if key is None:
                return None
            log = self.seal(key)
        if log.is_pinned or log not in self.shelf.logs:
            return None
        log.busy = True
        return log

    def close(self) -> None:
        """Close the open files; what waits stays for the next start."""
        for opened in self.open.values():
            try:
                opened.log.close()
            except OSError as error:
                self._note(error)
        self.open = {}
