"""Samples and labels on their way to the store, safe on the disk before anyone is told that they were taken.

Each (kind, service) has one open log. Cutting seals it by a rename; a sealed log becomes one segment, whose
bytes follow from the log's, so an upload that is repeated after a crash writes the same object again. Only then
does the log go. From logs that were not offered to the store yet, a full spool drops the least valuable samples.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.edge.spool.aside import Aside
from edgeloop.edge.spool.disk import Disk, SpoolFailed
from edgeloop.edge.spool.eviction import Eviction, SpoolFull
from edgeloop.edge.spool.frames import Spooled, encode, frame
from edgeloop.edge.spool.ledger import Ledger, Opened
from edgeloop.edge.spool.log import Log, datasync
from edgeloop.edge.spool.recent import Recent, RecentLabels
from edgeloop.edge.spool.recovery import recover
from edgeloop.edge.spool.sending import Sending
from edgeloop.edge.spool.sequence import Sequence
from edgeloop.edge.spool.shelf import Key
from edgeloop.edge.spool.tiers import LABEL_TIER, tier_of
from edgeloop.samples.records import Sample

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore

__all__ = ["Limits", "Spool", "SpoolFailed", "SpoolFull"]

_log = logging.getLogger(__name__)
#: What is being written, by what makes it the same record again: the log and the position to sync.
Pending = tuple[Log, int]


@dataclass(frozen=True)
class Limits:
    """When to cut, and when to stop taking."""

    samples: int = 500
    seconds: float = 60
    bytes: int = 16 * 1024 * 1024
    spool_bytes: int = 1024 * 1024 * 1024


class Spool:
    """The spool of one node. Methods may be called from any thread; one process per folder.

    A folder that cannot be used does not stop it from being made: it takes nothing (:attr:`accepting`), sends what
    it can read, and looks again after a pause. ``clock`` must never go back; nothing here knows the time of day.
    """

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        fsync: Callable[[int], None] = datasync,
    ) -> None:
        self._folder = folder
        self._limits = limits or Limits()
        self._clock = clock
        self._refusing = threading.Lock()
        self._is_ready = False
        self._pending: dict[object, Pending] = {}
        self.refused = 0
        """Captures not taken since the start, because the spool was full or the disk failed."""
        self._disk = Disk(folder, clock)
        self._aside = Aside(folder / "aside")
        self._recent = Recent(folder / "uploaded.ids")
        self._labels = RecentLabels()
        self._sequence = Sequence(folder / "sequence")
        self._ledger = Ledger(folder, self._disk.failed, fsync)
        self._lock = self._ledger.lock
        self._eviction = Eviction(self._ledger, self._aside, self._limits.spool_bytes)
        self._sending = Sending(self._ledger, self._aside, self._disk, self._recent, clock)
        self._prepare()

    @property
    def samples(self) -> int:
        """Records that wait for the store."""
        with self._lock:
            return self._ledger.count

    @property
    def size(self) -> int:
        """Bytes that wait for the store."""
        with self._lock:
            return self._ledger.size

    @property
    def accepting(self) -> bool:
        """Whether the disk takes captures, as far as is known; a full spool still takes what is worth more."""
        return self._is_ready and self._disk.accepting

    @property
    def dropped(self) -> Counter[str]:
        """Records that a full spool dropped for more valuable ones since the start, by service."""
        with self._lock:
            return Counter(self._eviction.dropped)

    @property
    def corrupt(self) -> int:
        """Damaged stretches and logs set aside since the start."""
        return self._aside.count

    @property
    def last_error(self) -> str | None:
        """What the disk says that fails now."""
        return self._disk.last_error

    def counts(self, service: str) -> tuple[int, int]:
        """(records, bytes) of ``service`` that wait for the store."""
        with self._lock:
            return self._ledger.counts(service)

    def selected(self, sample_id: str) -> str | None:
        """What selected this sample, if it was captured lately, also before a restart."""
        with self._lock:
            return self._recent.get(sample_id)

    def is_known(self, sample_id: str) -> bool:
        """Whether this sample was captured lately: it waits, was uploaded, or was dropped since."""
        return self.selected(sample_id) is not None

    def append(self, record: Spooled, value: float = 1.0) -> bool:
        """Take one record; it is on the disk when this returns. Concurrent calls share a sync.

        ``value`` in [0, 1] says what a full spool drops first; labels stay longest whatever it is. A sample gets the
        field ``sequence``, a number of this node that only grows. What was taken lately is not taken twice, and False
        is returned: the same sample, or the same last word of a speaker on a sample.

        Raises:
            SpoolFull: over the bound, and nothing less valuable waits; answering can go on.
            SpoolFailed: the disk does not take it; answering can go on.
        """
        return self.begin(record, value)()

    def begin(self, record: Spooled, value: float = 1.0) -> Callable[[], bool]:
        """:meth:`append` up to the sync; what is returned waits for it, and must be called.

        Records that are begun before the first is waited for share one sync. Raises as :meth:`append`, now or then.
        """
        name = _name(record)
        try:
            written = self._enter(record, name, value)
        except OSError as error:
            raise self._failed(error) from error
        except (SpoolFull, SpoolFailed):
            self._refuse()
            raise
        return (lambda: False) if written is None else partial(self._finish, record, name, written)

    def _finish(self, record: Spooled, name: object, written: Pending) -> bool:
        is_sure = False
        try:
            written[0].sync(written[1])
            is_sure = True
        except OSError as error:
            raise self._failed(error) from error
        finally:
            with self._lock:
                is_new = self._pending.pop(name, None) is not None  # else somebody else waited for the same record
                is_full = is_sure and self._taken(record, written[0])
            if is_full:
                self._ledger.seal_due(self._is_full)
        return is_new

    def _failed(self, error: OSError) -> SpoolFailed:
        self._refuse()
        return self._disk.failed(error)

    def _refuse(self) -> None:
        with self._refusing:
            self.refused += 1

    def _enter(self, record: Spooled, name: object, value: float) -> Pending | None:
        """Write the record, once there is room; None if it was taken before."""
        if self._is_taken(record):  # asked without the lock, to spare the work; asked again below
            return None
        self._prepare()
        self._disk.check()
        tier = tier_of(value) if isinstance(record, Sample) else LABEL_TIER
        framed = self._framed(record, tier)
        while True:
            with self._lock:
                if self._is_taken(record):
                    return None
                if name in self._pending:
                    return self._pending[name]
                self._disk.check()
                if self._eviction.fits(len(framed)):
                    self._pending[name] = self._ledger.write(_key(record), tier, framed, self._clock())
                    return self._pending[name]
            self._eviction.make_room(len(framed), tier)

    def _is_taken(self, record: Spooled) -> bool:
        if isinstance(record, Sample):
            return self._recent.get(record.sample_id) is not None
        return record in self._labels

    def _framed(self, record: Spooled, tier: int) -> bytes:
        sequence = self._sequence.take() if isinstance(record, Sample) else None
        return frame(encode(record, sequence), tier)

    def _taken(self, record: Spooled, log: Log) -> bool:
        """Remember the record; whether its log is full."""
        self._disk.took()
        self._remember(record)
        opened = self._ledger.open.get(_key(record))
        return opened is not None and opened.log is log and self._is_full(opened)

    def _remember(self, record: Spooled) -> None:
        if isinstance(record, Sample):
            self._recent.add(record.sample_id, record.selected_by)
        else:
            self._labels.add(record)

    def _is_full(self, opened: Opened) -> bool:
        count = opened.tiers.count
        return count > 0 and (count >= self._limits.samples or opened.log.size >= self._limits.bytes)

    def _is_due(self, opened: Opened) -> bool:
        is_old = self._clock() - opened.since >= self._limits.seconds
        return opened.tiers.count > 0 and (is_old or self._is_full(opened))

    def cut(self, *, everything: bool = False) -> None:
        """Seal the logs that are old enough, or all; look at a disk that failed; make room where that is due."""
        self._prepare()
        self._disk.probe()
        self._ledger.seal_due(_holds_some if everything else self._is_due)
        if not self._disk.is_paused:
            try:
                self._eviction.finish()
            except OSError as error:
                self._disk.failed(error)

    def upload(self, store: ObjectStore, *, deadline: float | None = None) -> int:
        """Send all sealed logs, oldest first; returns how many. Stops at ``deadline`` (of the spool's clock).

        Raises:
            StoreUnavailable, BucketMissing: the store does not take one; it and the rest stay.
            StoreDenied, BadInput: it refuses some kinds of some services; they stay, all others were sent.
            NoMemory: a segment could not be made; it and the rest stay.
        """
        self._prepare()
        return self._sending.send(store, deadline)

    def _prepare(self) -> None:
        """Take in what the folder holds, once it can be read, and see whether it can be written."""
        if self._is_ready or self._disk.is_paused:
            return
        with self._lock:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._ledger.load(list(recover(self._folder, self._aside, self._recall)))
                self._is_ready = True
                self._sequence.reserve()
            except OSError as error:
                _log.error("the spool's folder cannot be used", extra={"error": str(error)})
                self._disk.failed(error)

    def _recall(self, record: Spooled) -> None:
        self._remember(record)
        self._sequence.seen((record.__pydantic_extra__ or {}).get("sequence"))

    def close(self) -> None:
        """Close the files; what waits stays for the next start."""
        with self._lock:
            self._ledger.close()
        if self.accepting:
            self._sequence.close()


def _key(record: Spooled) -> Key:
    return ("captures" if isinstance(record, Sample) else "labels"), record.service


def _holds_some(opened: Opened) -> bool:
    return opened.tiers.count > 0


def _name(record: Spooled) -> tuple[str, ...]:
    """What makes two records the same."""
    if isinstance(record, Sample):
        return (record.sample_id,)
    return (record.sample_id, record.service, record.source, record.by, record.label)
