"""Fetching blobs over links that break and store bytes that rot: resumed, several at a time, slowed down, checked.

Bytes reach their name only after their digest was compared over the whole; until then they lie in ``<name>.part``,
where the next attempt goes on, also after a kill. The disk is the spool's too: what would fill it is not fetched.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.edge.files import sync
from edgeloop.errors import EdgeloopError, Unavailable
from edgeloop.samples.releases import blob_key

if TYPE_CHECKING:
    from edgeloop.clients.objects import ObjectStore

_CHUNK = 1024 * 1024
_LEAST_CHUNK = 16 * 1024
#: Pauses in seconds before each attempt at a blob that came wrong.
_PAUSES = (0.0, 0.0, 1.0, 4.0)
#: Free bytes that a download leaves on the disk, a sixteenth of a small one: captures, state and logs go on.
RESERVE = 64 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT}


class CorruptBlob(EdgeloopError):
    """The store holds other bytes under this name: they came twice the same."""


class DamagedTransfer(Unavailable):
    """Bytes come differently each time: the link or the disk damages them."""


class Interrupted(Unavailable):
    """What was being fetched is not what is to be fetched now."""


class DiskFull(EdgeloopError):
    """The disk has no room for what is to be fetched."""


@dataclass(frozen=True)
class Wish:
    """A blob to be fetched to ``path``: its name, and its size in bytes."""

    name: str
    size: int
    path: Path

    @property
    def part(self) -> Path:
        """Where its bytes are until they are whole."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def missing(self) -> int:
        """Bytes that did not come yet."""
        try:
            return max(self.size - self.part.stat().st_size, 0)
        except OSError:
            return self.size


class Allowance:
    """So many bytes per second, divided among all threads that ask; None is no limit."""

    def __init__(
        self,
        bytes_per_second: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._free = clock()
        self._lock = threading.Lock()

    @property
    def chunk(self) -> int:
        """Bytes to ask for at once: a quarter of a second's worth."""
        return _CHUNK if self.rate is None else min(_CHUNK, max(_LEAST_CHUNK, self.rate // 4))

    def take(self, count: int) -> None:
        """Wait until ``count`` bytes may be read."""
        if self.rate is None:
            return
        with self._lock:
            now = self._clock()
            start = max(self._free, now)
            self._free = start + count / self.rate
        if start > now:
            self._sleep(start - now)


class Downloads:
    """Fetches blobs; the threads are daemons, so that a store that hangs does not hold up the end of the process."""

    def __init__(
        self,
        bytes_per_second: int | None = None,
        *,
        parallel: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._allowance = Allowance(bytes_per_second, sleep=sleep)
        self._parallel = parallel
        self._sleep = sleep

    def fetch(self, store: ObjectStore, wishes: Sequence[Wish], goes_on: Callable[[], bool] = lambda: True) -> None:
        """Fetch all ``wishes``; what is whole stays when another fails. ``goes_on`` is asked before each chunk.

        Raises:
            CorruptBlob: the store's bytes are not the ones named.
            DiskFull: there is no room for them.
            Interrupted: it does not go on; what came stays for another time.
            DamagedTransfer, StoreUnavailable, ObjectMissing, OSError: worth a retry, which goes on where this ended.
        """
        _check_room(wishes)
        left, errors = deque(wishes), list[BaseException]()

        def work() -> None:
            while left and not errors:
                try:
                    self._fetch_one(store, left.popleft(), goes_on)
                except IndexError:
                    return
                except BaseException as error:
                    errors.append(error)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self._parallel, len(wishes)) - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def _fetch_one(self, store: ObjectStore, wish: Wish, goes_on: Callable[[], bool]) -> None:
        part = wish.part
        part.parent.mkdir(parents=True, exist_ok=True)
        seen: set[str] = set()
        for pause in _PAUSES:
            self._sleep(pause)
            got = self._fill(store, wish, part, goes_on)
            if got == wish.name:
                part.replace(wish.path)
                sync(part.parent)
                return
            size = part.stat().st_size
            part.unlink()
            if got in seen:
                raise CorruptBlob(f"blob {wish.name} of {wish.size} bytes came as {got} of {size}: release it again")
            seen.add(got)
        raise DamagedTransfer(
            f"blob {wish.name} came wrong {len(_PAUSES)} times, each time differently: look at the link and the disk"
        )

    def _fill(self, store: ObjectStore, wish: Wish, part: Path, goes_on: Callable[[], bool]) -> str:
        """Append to ``part`` what it lacks; the digest of all of it. A disk that is full gets its room back."""
        try:
            self._append(store, wish, part, goes_on)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            part.unlink(missing_ok=True)
            raise DiskFull(f"blob {wish.name} of {wish.size} bytes filled the disk ({error}): free some") from error
        with part.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    def _append(self, store: ObjectStore, wish: Wish, part: Path, goes_on: Callable[[], bool]) -> None:
        with part.open("ab") as file:
            have = file.tell()
            if have > wish.size:
                file.truncate(0)
                have = 0
            while have < wish.size:
                if not goes_on():
                    raise Interrupted(f"blob {wish.name} has {have} of {wish.size} bytes, and the channel has changed")
                end = min(have + self._allowance.chunk, wish.size)
                self._allowance.take(end - have)
                data = store.get_range(blob_key(wish.name), have, end)
                if not data:
                    break
                file.write(data)
                have += len(data)
            file.flush()
            os.fsync(file.fileno())


def _check_room(wishes: Sequence[Wish]) -> None:
    if not wishes:
        return
    folder = wishes[0].path.parent
    folder.mkdir(parents=True, exist_ok=True)
    missing, disk = sum(wish.missing for wish in wishes), shutil.disk_usage(folder)
    reserve = min(RESERVE, disk.total // 16)
    if missing + reserve > disk.free:
        needs = f"a release needs {missing} bytes more and {reserve} are to stay free"
        raise DiskFull(f"{needs}, the disk of {folder} has {disk.free}: free some")
