"""What a log of the spool holds: as records for a segment, as tiers for the bound, and less of it when room is needed.

A log that cannot be read must not stop the others; which errors say so, and which only say "not now", is told here.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from edgeloop.edge.files import sync, write_durably
from edgeloop.edge.logs import kind_of
from edgeloop.edge.spool.aside import Aside
from edgeloop.edge.spool.frames import Frame, Scan, Spooled, decode, scan
from edgeloop.edge.spool.shelf import Shelved
from edgeloop.edge.spool.tiers import Tiers
from edgeloop.errors import EdgeloopError
from edgeloop.samples.records import Sample
from edgeloop.samples.segments import write_segment

_log = logging.getLogger(__name__)
_NOT_NOW = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EBUSY}


class Unreadable(EdgeloopError):
    """A log of the spool cannot be read, and will not be by trying again."""


def read(path: Path, size: int | None = None) -> bytes:
    """The first ``size`` bytes of a log, or all.

    Raises:
        Unreadable: the file is at fault.
        OSError: this process or the machine lacks something for a while.
    """
    try:
        with path.open("rb") as file:
            return file.read(-1 if size is None else size)
    except OSError as error:
        if error.errno in _NOT_NOW:
            raise
        raise Unreadable(f"{path.name} cannot be read ({error}): look for it in the folder aside") from error


def tiers_of(found: Scan) -> Tiers:
    """The tiers of a scanned log."""
    tiers = Tiers()
    for each in found.frames:
        tiers.add(each.tier, each.end - each.start)
    return tiers


def parsed(body: bytes) -> Spooled | None:
    """The record of a body, None where it does not parse."""
    try:
        return decode(body)
    except (ValueError, KeyError, TypeError) as error:
        _log.warning("a spooled record does not parse", extra={"error": kind_of(error)})
        return None


def records_of(path: Path, data: bytes, aside: Aside | None) -> list[Spooled]:
    """The records of a log, each sample once; what is damaged goes to ``aside``."""
    found = scan(data)
    damage = list(found.broken)
    records: dict[object, Spooled] = {}
    for each in found.frames:
        record = parsed(each.body)
        if record is None:
            damage.append((each.start, each.end))
        else:
            records.setdefault(record.sample_id if isinstance(record, Sample) else each.body, record)
    if aside is not None:
        for start, end in damage:
            aside.keep(path, start, data[start:end])
    return list(records.values())


def segment_of(records: list[Spooled]) -> tuple[bytes | None, list[Spooled]]:
    """(segment, records that are in it); a record that no segment can hold is left out. None for no records."""
    if not records:
        return None, []
    try:
        return write_segment(records), records
    except MemoryError:  # another time
        raise
    except Exception:
        _log.exception("a log cannot be made a segment as it is")
    fit = [record for record in records if _fits(record)]
    return (write_segment(fit) if fit else None), fit


def _fits(record: Spooled) -> bool:
    try:
        write_segment([record])
    except MemoryError:
        raise
    except Exception as error:
        _log.warning("a record fits in no segment", extra={"sample": record.sample_id, "error": kind_of(error)})
        return False
    return True


class Thinned(NamedTuple):
    """What a rewritten log holds, and how many records it lost."""

    size: int
    """In bytes; 0 when the log is gone."""
    tiers: Tiers
    lost: int


def thin(path: Path, size: int, is_lost: Callable[[Frame], bool]) -> Thinned:
    """Rewrite a log without some frames.

    What is damaged stays where it was between the others. After a crash the log is the old one or the new one.

    Raises:
        Unreadable: the file is at fault.
        OSError: it cannot be written; it is as it was, or new, if only its name is not sure yet.
    """
    data = read(path, size)
    found = scan(data)
    lost = [each for each in found.frames if is_lost(each)]
    rest = _cut_out(data[: found.end], lost)
    if rest:
        write_durably(path, rest)
    else:
        path.unlink()
        sync(path.parent)
    return Thinned(len(rest), tiers_of(scan(rest)), len(lost))


def _cut_out(data: bytes, lost: list[Frame]) -> bytes:
    starts = [0, *(each.end for each in lost)]
    ends = [*(each.start for each in lost), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends, strict=True))


def measure(log: Shelved) -> None:
    """Count a log anew by what its file holds, as far as that can be read."""
    if not log.path.exists():
        log.size, log.tiers = 0, Tiers()
        return
    with suppress(OSError, Unreadable):
        found = scan(read(log.path, log.size))
        log.size, log.tiers = found.end, tiers_of(found)
