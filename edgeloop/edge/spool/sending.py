"""Sealed logs on their way to the store: each becomes one object, once, and goes only when the store has it.

Before a log is offered it is renamed, durably: from then on it is not changed, so that whatever became of an
upload that broke off, the next one makes the same bytes under the same name.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.clients.store_types import BucketMissing, StoreDenied
from edgeloop.edge.files import sync
from edgeloop.edge.spool.aside import Aside
from edgeloop.edge.spool.contents import Unreadable, read, records_of, segment_of
from edgeloop.edge.spool.disk import Disk
from edgeloop.edge.spool.frames import Spooled
from edgeloop.edge.spool.ledger import Ledger
from edgeloop.edge.spool.recent import Recent
from edgeloop.edge.spool.shelf import Key, Shelved
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.samples.records import Sample
from edgeloop.samples.segments import segment_key

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore

_log = logging.getLogger(__name__)


class NoMemory(EdgeloopError):
    """There is no memory for a segment now; the log waits."""


class Sending:
    """Sends the sealed logs of ``ledger``. Methods may be called from any thread; one sends at a time."""

    def __init__(self, ledger: Ledger, aside: Aside, disk: Disk, recent: Recent, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._aside = aside
        self._disk = disk
        self._recent = recent
        self._clock = clock
        self._alone = threading.Lock()

    def send(self, store: ObjectStore, deadline: float | None) -> int:
        """Send all sealed logs until ``deadline``, oldest first; returns how many.

        Raises:
            StoreUnavailable, BucketMissing: the store does not take one; it and the rest stay.
            StoreDenied, BadInput: it refuses some kinds of some services; they stay, all others were sent.
            NoMemory: a segment could not be made; it and the rest stay.
        """
        sent = 0
        refused: dict[Key, EdgeloopError] = {}
        with self._alone:
            self._let_go()
            while deadline is None or self._clock() < deadline:
                log = self._claim(refused)
                if log is None:
                    break
                try:
                    sent += self._send(log, store)
                except BucketMissing:
                    raise
                except (StoreDenied, BadInput) as error:
                    refused[log.key] = error
                finally:
                    log.busy = False
        if refused:
            raise next(iter(refused.values()))
        return sent

    def _claim(self, refused: Container[Key]) -> Shelved | None:
        with self._ledger.lock:
            log = self._ledger.shelf.next_to_send(refused)
            if log is not None:
                log.busy = True
            return log

    def _send(self, log: Shelved, store: ObjectStore) -> bool:
        """Whether there was something to send; a log that cannot be read goes out of the way."""
        self._pin(log)
        try:
            data, records = self._segment(log)
        except Unreadable as error:
            self._aside.move(log.path, error)
            self._remove(log)
            return False
        if data:
            store.create(segment_key(*log.key, data), data)
            self._recent.keep([(r.sample_id, r.selected_by) for r in records if isinstance(r, Sample)])
        self._remove(log)
        self._unlink(log.path, log.size)
        return data is not None

    def _pin(self, log: Shelved) -> None:
        """Note on the disk that the log may be in the store from now on, and cut off what does not count."""
        if log.path.suffix == ".sending":
            return
        log.attempted = True
        path = log.path.with_suffix(".sending")
        try:
            if log.path.stat().st_size > log.size:
                os.truncate(log.path, log.size)
                with self._ledger.lock:
                    self._ledger.shelf.recount(log, log.size, log.tiers)
            log.path.rename(path)
            log.path = path
            sync(path.parent)
        except OSError as error:  # a disk that takes no rename does not rewrite a log either
            _log.warning("a log is sent as it is", extra={"file": log.path.name, "error": str(error)})

    def _segment(self, log: Shelved) -> tuple[bytes | None, list[Spooled]]:
        data = read(log.path, log.size)
        aside, log.noted = (None if log.noted else self._aside), True
        try:
            records = records_of(log.path, data, aside)
            segment, kept = segment_of(records)
        except MemoryError as error:
            raise NoMemory(f"no memory for the segment of {log.path.name}: give the node more") from error
        if len(kept) < len(records):
            self._aside.keep(log.path, 0, data)
        return segment, kept

    def _remove(self, log: Shelved) -> None:
        with self._ledger.lock:
            self._ledger.shelf.remove(log)

    def _unlink(self, path: Path, size: int) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._disk.failed(error)
            with self._ledger.lock:
                self._ledger.left[path] = size

    def _let_go(self) -> None:
        """Unlink what the store has, once the disk may take it."""
        if self._disk.is_paused:
            return
        with self._ledger.lock:
            left, self._ledger.left = self._ledger.left, {}
        for path, size in left.items():
            self._unlink(path, size)
