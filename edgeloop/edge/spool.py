"""Samples and labels on their way to the store, safe on the disk before anyone is told that they were taken.

Each (kind, service) has one open log. Cutting seals it by a rename; a sealed log becomes one segment, whose
bytes follow from the log's, so an upload that is repeated after a crash writes the same object again. Only then
does the log go.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgeloop.edge.files import sync_folder, write_durably
from edgeloop.edge.frames import Spooled, decode, encode, frame, scan
from edgeloop.edge.log import Log
from edgeloop.edge.recent import Recent
from edgeloop.errors import EdgeloopError
from edgeloop.samples.records import Sample
from edgeloop.samples.segments import segment_key, write_segment

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore

_log = logging.getLogger(__name__)
Kind = Literal["captures", "labels"]
Key = tuple[str, str]
#: After the disk refused, wait this long before it is tried again, in seconds.
_PAUSE = 5.0
_ASIDE_BYTES = 64 * 1024 * 1024


class SpoolFull(EdgeloopError):
    """The spool has reached its bound: nothing is captured until the store takes what waits."""


class SpoolFailed(EdgeloopError):
    """The disk under the spool does not take more: full, read-only or broken."""


@dataclass(frozen=True)
class Limits:
    """When to cut, and when to stop taking."""

    samples: int = 500
    seconds: float = 60
    bytes: int = 16 * 1024 * 1024
    spool_bytes: int = 1024 * 1024 * 1024


@dataclass
class _Open:
    log: Log
    since: float
    count: int


@dataclass(frozen=True)
class _Sealed:
    path: Path
    size: int
    count: int


class Spool:
    """The spool of one node. Methods may be called from any thread; one process per folder."""

    def __init__(
        self,
        folder: Path,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        fsync: Callable[[int], None] = os.fsync,
    ) -> None:
        self._folder = folder
        self._limits = limits or Limits()
        self._clock = clock
        self._fsync = fsync
        self._lock = threading.RLock()
        self._uploading = threading.Lock()
        self._open: dict[Key, _Open] = {}
        self._sealed: list[_Sealed] = []
        self._number = 0
        self._paused_until = -1.0
        self.refused = 0
        """Captures not taken since the start, because the spool was full or the disk failed."""
        self.corrupt = 0
        """Damaged stretches set aside since the start."""
        self.last_error: str | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._recent = Recent(folder / "uploaded.ids")
        self._recover()

    @property
    def samples(self) -> int:
        """Records that wait for the store."""
        with self._lock:
            return sum(o.count for o in self._open.values()) + sum(s.count for s in self._sealed)

    @property
    def size(self) -> int:
        """Bytes that wait for the store."""
        with self._lock:
            return sum(o.log.size for o in self._open.values()) + sum(s.size for s in self._sealed)

    def counts(self, service: str) -> tuple[int, int]:
        """(records, bytes) of ``service`` that wait for the store."""
        with self._lock:
            parts = [(o.count, o.log.size) for key, o in self._open.items() if key[1] == service]
            parts += [(s.count, s.size) for s in self._sealed if _key_of(s.path)[1] == service]
        return sum(p[0] for p in parts), sum(p[1] for p in parts)

    def selected(self, sample_id: str) -> str | None:
        """What selected this sample, if it was captured lately, also before a restart."""
        with self._lock:
            return self._recent.get(sample_id)

    def append(self, record: Spooled) -> None:
        """Take one record; it is on the disk when this returns. Concurrent calls share a sync.

        Raises:
            SpoolFull: over the bound; answering can go on.
            SpoolFailed: the disk does not take it; answering can go on.
        """
        data = frame(encode(record))
        key: Key = ("captures" if isinstance(record, Sample) else "labels", record.service)
        try:
            with self._lock:
                opened, position = self._write(key, data)
            opened.log.sync(position)
        except OSError as error:
            raise self._failed(error) from error
        with self._lock:
            if isinstance(record, Sample):
                self._recent.add(record.sample_id, record.selected_by)
            if self._open.get(key) is opened and self._is_due(opened, by_age=False):
                self._seal(key)

    def _write(self, key: Key, data: bytes) -> tuple[_Open, int]:
        if self._clock() < self._paused_until:
            self.refused += 1
            raise SpoolFailed(f"the spool's disk failed ({self.last_error}): free or mend it")
        if self.size + len(data) > self._limits.spool_bytes:
            self.refused += 1
            raise SpoolFull(
                f"the spool holds {self.size} bytes and may hold {self._limits.spool_bytes}: check the store"
            )
        opened = self._open.get(key)
        if opened is None or opened.log.broken:
            opened = self._renew(key)
        position = opened.log.write(data)
        opened.count += 1
        return opened, position

    def _renew(self, key: Key) -> _Open:
        if key in self._open:
            self._seal(key)
        self._number += 1
        path = self._folder / f"{key[0]}.{key[1]}.{self._number:012d}.open"
        self._open[key] = _Open(Log(path, fsync=self._fsync), self._clock(), 0)
        return self._open[key]

    def _failed(self, error: OSError) -> SpoolFailed:
        with self._lock:
            self.refused += 1
            self.last_error = f"spool: {error}"
            self._paused_until = self._clock() + _PAUSE
        return SpoolFailed(f"the spool's disk failed ({error}): free or mend it")

    def _is_due(self, opened: _Open, *, by_age: bool) -> bool:
        limits = self._limits
        old = by_age and self._clock() - opened.since >= limits.seconds
        return opened.count > 0 and (old or opened.count >= limits.samples or opened.log.size >= limits.bytes)

    def cut(self, *, everything: bool = False) -> None:
        """Seal the logs that are old enough, or all."""
        with self._lock:
            for key, opened in list(self._open.items()):
                if (everything and opened.count) or self._is_due(opened, by_age=True):
                    self._seal(key)

    def _seal(self, key: Key) -> None:
        opened = self._open.pop(key)
        path = opened.log.path.with_suffix(".sealed")
        try:
            opened.log.close()
        except OSError as error:
            self.last_error = f"spool: {error}"
        try:
            opened.log.path.rename(path)
            sync_folder(self._folder)
        except OSError as error:  # it is found again at the next start, or by the next cut of a mended disk
            self.last_error = f"spool: {error}"
            path = opened.log.path if not path.exists() else path
        self._sealed.append(_Sealed(path, opened.log.size, opened.count))

    def upload(self, store: ObjectStore, *, deadline: float | None = None) -> int:
        """Send all sealed logs, oldest first; returns how many. Stops at ``deadline`` (of the spool's clock).

        Raises:
            StoreUnavailable: the store does not take one; it and the rest stay.
        """
        sent = 0
        with self._uploading:
            while deadline is None or self._clock() < deadline:
                with self._lock:
                    if not self._sealed:
                        return sent
                    sealed = self._sealed[0]
                self._send(sealed, store)
                sent += 1
        return sent

    def _send(self, sealed: _Sealed, store: ObjectStore) -> None:
        kind, service = _key_of(sealed.path)
        records = self._read(sealed.path) if sealed.path.exists() else []
        data = self._segment(sealed.path, records)
        if data:
            store.create(segment_key(kind, service, data), data)
            self._recent.keep([(r.sample_id, r.selected_by) for r in records if isinstance(r, Sample)])
        sealed.path.unlink(missing_ok=True)
        with self._lock:
            self._sealed.remove(sealed)

    def _segment(self, path: Path, records: list[Spooled]) -> bytes | None:
        """The segment of ``records``; a log that makes none is set aside, so that it does not stop the others."""
        if not records:
            return None
        try:
            return write_segment(records)
        except Exception:
            _log.exception("a log cannot be made a segment", extra={"file": path.name})
            self._set_aside(path, 0, path.read_bytes())
            return None

    def _read(self, path: Path) -> list[Spooled]:
        """The records of a log, each sample once; what is damaged is set aside."""
        data = path.read_bytes()
        found = scan(data)
        for start, end in found.broken:
            self._set_aside(path, start, data[start:end])
        records: dict[object, Spooled] = {}
        for body in found.bodies:
            try:
                record = decode(body)
            except (ValueError, KeyError, TypeError) as error:
                _log.warning("a spooled record does not parse", extra={"error": str(error)[:300]})
                self._set_aside(path, len(records), body)
            else:
                records[record.sample_id if isinstance(record, Sample) else body] = record
        return list(records.values())

    def _set_aside(self, path: Path, start: int, data: bytes) -> None:
        self.corrupt += 1
        folder = self._folder / "aside"
        used = sum(f.stat().st_size for f in folder.iterdir()) if folder.exists() else 0
        _log.error("damaged bytes in the spool", extra={"file": path.name, "at": start, "bytes": len(data)})
        if used + len(data) <= _ASIDE_BYTES:
            try:
                write_durably(folder / f"{path.name}.{start}", data)
            except OSError as error:  # a full disk is emptied by going on
                _log.error("damaged bytes were not kept", extra={"error": str(error)})

    def _recover(self) -> None:
        for path in sorted(self._folder.glob("*.*.*.*")):
            if path.suffix in (".open", ".sealed"):
                self._number = max(self._number, int(path.name.split(".")[2]))
                self._recover_log(path)

    def _recover_log(self, path: Path) -> None:
        data = path.read_bytes()
        found = scan(data)
        if path.suffix == ".open" and found.end < len(data):
            os.truncate(path, found.end)
        for body in found.bodies:
            self._recall(body)
        key = _key_of(path)
        if path.suffix == ".sealed" or key in self._open:
            self._sealed.append(_Sealed(path, len(data), len(found.bodies)))
        else:
            log = Log(path, fsync=self._fsync)
            self._open[key] = _Open(log, self._clock(), len(found.bodies))

    def _recall(self, body: bytes) -> None:
        try:
            record = decode(body)
        except (ValueError, KeyError, TypeError):  # set aside when it is uploaded
            return
        if isinstance(record, Sample):
            self._recent.add(record.sample_id, record.selected_by)

    def close(self) -> None:
        """Close the files; what waits stays for the next start."""
        with self._lock:
            for opened in self._open.values():
                try:
                    opened.log.close()
                except OSError as error:
                    _log.error("a spool log was not synced", extra={"error": str(error)})
            self._open = {}


def _key_of(path: Path) -> tuple[Kind, str]:
    kind, service = path.name.split(".")[:2]
    return ("captures" if kind == "captures" else "labels"), service
