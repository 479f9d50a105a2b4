"""What a spool's folder holds when a node starts, whatever state the last one left it in.

A log that cannot be read is set aside. A record that is in two logs, because a sync failed after it was written
and it was sent again, stays in the older one.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from edgeloop.edge.spool.aside import Aside
from edgeloop.edge.spool.contents import Unreadable, parsed, read, thin, tiers_of
from edgeloop.edge.spool.frames import Frame, Scan, Spooled, scan
from edgeloop.edge.spool.shelf import Shelved, number_of
from edgeloop.samples.records import Sample

_log = logging.getLogger(__name__)
_STATES = (".open", ".sealed", ".sending")
_SEEN = 50_000


def recover(folder: Path, aside: Aside, remember: Callable[[Spooled], None]) -> Iterator[Shelved]:
    """The logs of ``folder`` from the oldest; ``remember`` is told of every record in them.

    Raises:
        OSError: the folder cannot be listed, or this process lacks what it needs to read.
    """
    _sweep(folder)
    seen: OrderedDict[bytes, None] = OrderedDict()
    for path in find_logs(folder):
        try:
            data = read(path)
        except Unreadable as error:
            aside.move(path, error)
            continue
        yield _shelved(path, scan(data), seen, remember)


def find_logs(folder: Path) -> list[Path]:
    """The logs of a spool's folder by their number."""
    paths = [path for path in folder.iterdir() if path.suffix in _STATES and number_of(path) >= 0]
    return sorted(paths, key=number_of)


def _sweep(folder: Path) -> None:
    """Remove what was being written beside a file when the node died."""
    for path in [*folder.glob("*.tmp"), *(folder / "aside").glob("*.tmp")]:
        with suppress(OSError):
            path.unlink()


def _shelved(path: Path, found: Scan, seen: OrderedDict[bytes, None], remember: Callable[[Spooled], None]) -> Shelved:
    names: list[bytes] = []
    twice: set[int] = set()
    for each in found.frames:
        record = parsed(each.body)
        if record is None:  # set aside when it is uploaded
            continue
        name = _name(record, each.body)
        if name in seen:
            twice.add(each.start)
        else:
            names.append(name)
            remember(record)
    seen.update(dict.fromkeys(names))
    while len(seen) > _SEEN:
        seen.popitem(last=False)
    log = Shelved(path, found.end, tiers_of(found), attempted=path.suffix == ".sending")
    if twice and not log.attempted:
        _without(log, twice)
    return log


def _name(record: Spooled, body: bytes) -> bytes:
    text = record.sample_id.encode() if isinstance(record, Sample) else body
    return hashlib.blake2b(text, digest_size=16).digest()


def _without(log: Shelved, starts: set[int]) -> None:
    def is_lost(each: Frame) -> bool:
        return each.start in starts

    try:
        log.size, log.tiers, _ = thin(log.path, log.size, is_lost)
    except (OSError, Unreadable) as error:
        _log.warning("a record stays in two logs", extra={"file": log.path.name, "error": str(error)})
