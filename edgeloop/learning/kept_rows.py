"""Rows of one width kept by the digest of what they belong to, so that a round reads the rows it needs and no others.

A part is one immutable object: a head, the names in order, a checksum for each row, and the rows. Looking names up
reads the heads (36 bytes a row) and then only the ranges that hold what was found; what that costs follows the number
of names asked for. A part that cannot be trusted is passed over with a line in the log: what it held is made anew.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.objects import ObjectInfo, ObjectMissing, ObjectStore
from edgeloop.samples.records import digest, hexdigest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
#: Magic, what the rows are of, their number, bytes of each, and the checksum of all that.
_HEAD = struct.Struct("<8s32sIII")
_MAGIC = b"ELROWS1\n"
_NAME = 32
#: Above this many parts the small ones are put together.
MOST_PARTS = 16
#: A part of this size stays as it is.
WHOLE_BYTES = 64_000_000
#: Bytes that nobody asked for but that lie between two rows that are read, at most: on S3 a request costs as much.
_GAP_BYTES = 65_536
#: Ranges that are read at once; on S3 each is a request.
_READERS = 8
#: How often a look-up lists the parts, at most, while they come and go; a row that it misses is made anew.
_LISTINGS = 50


@dataclass(frozen=True)
class _Part:
    """What is known of a part without its rows."""

    key: str
    names: NDArray[np.bytes_]
    checks: NDArray[np.uint32]
    width: int

    @property
    def start(self) -> int:
        """Where the rows begin."""
        return _HEAD.size + len(self.names) * (_NAME + 4)


class _Untrusted(Exception):
    """Why a part is passed over."""


class KeptRows:
    """Rows of ``width`` bytes under ``prefix``, by name (``sha256:<hex>`` or its hexadecimal digits).

    Args:
        store: where the parts are.
        prefix: their folder; nothing else may be in it.
        of: digest of what the rows are of; a part that says otherwise is passed over.
        width: bytes of a row; None takes any.
    """

    def __init__(self, store: ObjectStore, prefix: str, of: str, width: int | None) -> None:
        self._store, self._prefix, self._of, self._width = store, prefix, bytes.fromhex(hexdigest(of)), width

    def find(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those of ``names`` that are kept, with their rows."""
        return self._look_up(names, self._rows)

    def known(self, names: Iterable[str]) -> set[str]:
        """Those of ``names`` that are kept; no row is read, and so none is checked."""
        return set(self._look_up(names, lambda part, places: dict.fromkeys(_bytes(part.names[places]), b"")))

    def all(self) -> dict[str, bytes]:
        """Everything, by ``sha256:<hex>``: for small folders and tests."""
        found = self._gather(None, lambda part: self._rows(part, np.arange(len(part.names))))
        return {f"sha256:{key.hex()}": row for key, row in found.items()}

    def put(self, rows: Mapping[str, bytes]) -> None:
        """Keep rows; a name that is kept already may be kept once more, its rows are the same."""
        if not rows:
            return
        self._write({bytes.fromhex(hexdigest(name)): row for name, row in rows.items()})
        self.compact()

    def compact(self) -> int:
        """Put small parts together once there are more than :data:`MOST_PARTS`; how many became one.

        Several may do so at once: a part is removed only after a part that holds its rows is there, and rows that are
        kept twice are the same rows.
        """
        small = [info for info in self._store.list(self._prefix) if info.size < WHOLE_BYTES]
        chosen = _to_merge(sorted(small, key=lambda i: (i.size, i.key))) if len(small) > MOST_PARTS else []
        rows: dict[bytes, bytes] = {}
        try:
            for info in chosen:
                rows |= self._whole(info)
        except ObjectMissing:  # somebody else is at it
            return 0
        kept = self._write(rows) if rows else ""
        for info in chosen:
            if info.key != kept:
                self._store.delete(info.key)
        return len(chosen)

    def _write(self, rows: Mapping[bytes, bytes]) -> str:
        names = sorted(rows)
        width = len(rows[names[0]])
        head = _HEAD.pack(_MAGIC, self._of, len(names), width, _check_head(self._of, len(names), width))
        checks = np.array([_check(name, rows[name]) for name in names], "<u4").tobytes()
        data = b"".join([head, *names, checks, *(rows[name] for name in names)])
        key = f"{self._prefix}{hexdigest(digest(data))}.rows"
        self._store.put(key, data)  # not create: what has this name may be damaged
        return key

    def _look_up(
        self, names: Iterable[str], take: Callable[[_Part, NDArray[np.intp]], Mapping[bytes, bytes]]
    ) -> dict[str, bytes]:
        """What ``take`` says of those of ``names`` that are kept, by name; it is given ascending places in a part."""
        wanted = _by_key(names)
        keys = _names(sorted(wanted))

        def located(part: _Part) -> Mapping[bytes, bytes]:
            places = np.minimum(np.searchsorted(part.names, keys), len(part.names) - 1)
            there = part.names[places] == keys
            return take(part, places[there]) if there.any() else {}

        return {wanted[key]: row for key, row in self._gather(len(wanted), located).items()}

    def _gather(self, wanted: int | None, take: Callable[[_Part], Mapping[bytes, bytes]]) -> dict[bytes, bytes]:
        """What ``take`` finds in the parts, until there are ``wanted`` names or every part was read.

        While parts are put together, a listing may miss both the old one, gone already, and the new one, not there yet
        when it began: they are listed again until nothing has changed. A part never changes, so each is read once,
        however many come and go.
        """
        found: dict[bytes, bytes] = {}
        read: set[str] = set()
        before: set[str] | None = None
        for _ in range(_LISTINGS):
            listed = {info.key: info for info in self._store.list(self._prefix)}
            for info in (info for key, info in listed.items() if key not in read):
                if len(found) == wanted:
                    return found
                with suppress(ObjectMissing):
                    found |= self._taken(info, take)
                    read.add(info.key)
            if listed.keys() == before and listed.keys() <= read:
                break
            before = set(listed)
        return found

    def _taken(self, info: ObjectInfo, take: Callable[[_Part], Mapping[bytes, bytes]]) -> Mapping[bytes, bytes]:
        """What ``take`` finds in a part; nothing in one that is passed over. Raises ObjectMissing."""
        try:
            return take(self._opened(info))
        except _Untrusted as error:
            _LOG.warning("%s/%s is passed over: %s; delete it", self._store.url, info.key, error)
            return {}

    def _rows(self, part: _Part, places: NDArray[np.intp]) -> dict[bytes, bytes]:
        """The rows at ascending ``places``, those left out that are not what was written."""
        runs = np.split(places, np.flatnonzero(np.diff(places) > _GAP_BYTES // part.width) + 1)
        with ThreadPoolExecutor(min(_READERS, len(runs))) as pool:
            read = dict(pair for run in pool.map(lambda run: self._run(part, run), runs) for pair in run)
        damaged = len(places) - len(read)
        if damaged:
            _LOG.warning("%d rows of %s/%s are damaged: made anew; delete it", damaged, self._store.url, part.key)
        return read

    def _run(self, part: _Part, places: NDArray[np.intp]) -> list[tuple[bytes, bytes]]:
        first, width = int(places[0]), part.width
        data = self._store.get_range(part.key, part.start + first * width, part.start + (int(places[-1]) + 1) * width)
        names = _bytes(part.names[places])
        rows = [data[(p - first) * width : (p - first + 1) * width] for p in places.tolist()]
        checks = part.checks[places].tolist()
        return [(n, row) for n, row, check in zip(names, rows, checks, strict=True) if _check(n, row) == check]

    def _opened(self, info: ObjectInfo) -> _Part:
        """A part's head and names; raises _Untrusted, ObjectMissing."""
        head = self._store.get_range(info.key, 0, _HEAD.size)
        count, width = self._checked_head(head)
        size = _HEAD.size + count * (_NAME + 4 + width)
        if info.size != size:
            raise _Untrusted(f"it has {info.size} bytes and should have {size}")
        table = self._store.get_range(info.key, _HEAD.size, _HEAD.size + count * (_NAME + 4))
        names = np.frombuffer(table, f"S{_NAME}", count)
        return _Part(info.key, names, np.frombuffer(table, "<u4", count, count * _NAME), width)

    def _checked_head(self, head: bytes) -> tuple[int, int]:
        if len(head) != _HEAD.size or not head.startswith(_MAGIC):
            raise _Untrusted("it is of another layout")
        _, of, count, width, check = _HEAD.unpack(head)
        if check != _check_head(of, count, width) or not count:
            raise _Untrusted("its head is damaged")
        if of != self._of:
            raise _Untrusted(f"its rows are of sha256:{of.hex()}, not of sha256:{self._of.hex()}")
        if self._width is not None and width != self._width:
            raise _Untrusted(f"its rows have {width} bytes, not {self._width}")
        return count, width

    def _whole(self, info: ObjectInfo) -> dict[bytes, bytes]:
        """All rows of a part that are what was written; none of a part that is passed over."""
        try:
            part = self._opened(info)
        except _Untrusted as error:
            _LOG.warning("%s/%s is dropped: %s", self._store.url, info.key, error)
            return {}
        return self._rows(part, np.arange(len(part.names)))


def _to_merge(small: Sequence[ObjectInfo]) -> list[ObjectInfo]:
    """Of parts by size those to put together: the smallest two, and more while each is at most twice as large as all
    before it, so that a row is written again only about as often as the whole doubles."""
    chosen, total = list(small[:2]), sum(info.size for info in small[:2])
    for info in small[2:]:
        if info.size > 2 * total or total > WHOLE_BYTES:
            break
        chosen.append(info)
        total += info.size
    return chosen


def _by_key(names: Iterable[str]) -> dict[bytes, str]:
    return {bytes.fromhex(hexdigest(name)): name for name in names}


def _check(name: bytes, row: bytes) -> int:
    return zlib.crc32(row, zlib.crc32(name))


def _check_head(of: bytes, count: int, width: int) -> int:
    return zlib.crc32(_HEAD.pack(_MAGIC, of, count, width, 0))


def _names(keys: Sequence[bytes]) -> NDArray[np.bytes_]:
    return np.frombuffer(b"".join(keys), f"S{_NAME}")


def _bytes(names: NDArray[np.bytes_]) -> list[bytes]:
    """The names with the zeros at their ends, which NumPy drops from single ones."""
    data = names.tobytes()
    return [data[at : at + _NAME] for at in range(0, len(data), _NAME)]
