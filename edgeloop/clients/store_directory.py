"""Objects as files, for one machine without a bucket; a power cut must not leave half of one under its name."""

from __future__ import annotations

import builtins
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgeloop.clients.store_keys import (
    WRITING,
    check_range,
    checked,
    folder_of,
    nesting_refused,
    probe,
    table_folder,
)
from edgeloop.clients.store_types import (
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    StoreDenied,
    StoreUnavailable,
    TableLocation,
)
from edgeloop.errors import BadInput

_STALE_SECONDS = 24 * 3600.0


class DirectoryStore(ObjectStore):
    """Objects as files under one directory, on disk before the call returns.

    obstore's own LocalStore is not used: it never calls fsync, so a power cut can leave an empty object under
    a valid name. Objects are written in a hidden folder and then linked or renamed into place; what a killed
    writer leaves there is never listed and is swept when the directory is opened a day later.
    """

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self._root = root
        try:
            with self._wrapped(str(root)):
                (root / WRITING).mkdir(parents=True, exist_ok=True)
                self._sweep()
        except ObjectMissing as error:
            raise BadInput(f"store directory {self.url!r} cannot be created: choose another") from error

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._wrapped(key):
            return path.read_bytes()

    def get_range(self, key: str, start: int, end: int) -> bytes:
        check_range(key, start, end)
        path = self._path(key)
        with self._wrapped(key), path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._wrapped(key), self._written(data) as beside:
            self._place(key, beside, path, os.replace)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        if path.is_file():
            return False
        with self._wrapped(key), self._written(data) as beside:
            try:
                self._place(key, beside, path, os.link)
            except FileExistsError:
                return False
        return True

    def size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            with self._wrapped(key):
                return path.stat().st_size if not path.is_dir() else None
        except ObjectMissing:
            return None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore; files that come or go meanwhile may be seen or not."""
        folder = folder_of(prefix)
        return self._walk(folder)

    def delete(self, key: str) -> None:
        """See ObjectStore; folders that become empty go with it."""
        path = self._path(key)
        with suppress(ObjectMissing), self._wrapped(key):
            path.unlink()
            self._prune(path.parent)

    def move(self, source: str, target: str) -> None:
        old, new = self._path(source), self._path(target)
        with self._wrapped(source):
            if old.is_file() and old != new:
                # Gone before it could be renamed: somebody else moved or deleted it; the target tells which.
                with suppress(FileNotFoundError):
                    self._place(target, old, new, os.replace)
                    self._prune(old.parent)
            if not new.is_file():
                raise ObjectMissing(self.url, source)

    def table(self, prefix: str) -> TableLocation:
        """See ObjectStore; deltalake writes these files, without fsync."""
        return TableLocation(str(self._root / table_folder(prefix, self.url)))

    def check(self) -> None:
        probe(self)

    def _path(self, key: str) -> Path:
        return self._root / checked(key)

    @contextmanager
    def _wrapped(self, key: str) -> Iterator[None]:
        """Turns the system's errors into the store's."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(self.url, key) from error
        except PermissionError as error:
            raise StoreDenied(self.url, key, error.strerror or "permission denied") from error
        except OSError as error:
            raise StoreUnavailable(self.url, f"{error.strerror or error} ({key!r})") from error

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """The bytes in a hidden file, on disk; gone afterwards unless it was renamed."""
        beside = self._root / WRITING / uuid.uuid4().hex
        beside.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield beside
        finally:
            beside.unlink(missing_ok=True)

    def _place(self, key: str, source: Path, path: Path, step: Callable[[Path, Path], None]) -> None:
        """Renames or links `source` to `path`, and makes the name last."""
        for attempt in range(100):
            try:
                _make_folder(path.parent)
                step(source, path)
                break
            except FileNotFoundError:
                # Somebody deleted the folder's last object, and with it the folder, in this very moment.
                if attempt == 99 or not source.exists():
                    raise
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                if isinstance(error, FileExistsError) and not path.is_dir():
                    raise
                raise nesting_refused(self.url, key) from None
        with suppress(FileNotFoundError):
            sync_folder(path.parent)

    def _walk(self, folder: str) -> Iterator[ObjectInfo]:
        with self._wrapped(folder):
            for name, is_folder in self._entries(folder):
                if is_folder:
                    yield from self._walk(folder + name)
                    continue
                with suppress(FileNotFoundError):
                    found = (self._root / (folder + name)).stat()
                    yield ObjectInfo(folder + name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def _entries(self, folder: str) -> builtins.list[tuple[str, bool]]:
        """Names in one folder, in the order of whole keys: "a-b" comes before what is in "a/"."""
        try:
            with os.scandir(self._root / folder) as found:
                entries = [(one.name + "/", True) if one.is_dir() else (one.name, False) for one in found]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entry for entry in entries if folder or entry[0] != WRITING + "/")

    def _prune(self, folder: Path) -> None:
        with suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent

    def _sweep(self) -> None:
        for left in (self._root / WRITING).iterdir():
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                    left.unlink()


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        _make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """A name is only on disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def directory_of(url: str) -> Path:
    if not url.startswith("file:"):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url):
            shown = url.rpartition("@")[2]
            raise BadInput(f"store URL {shown!r} is neither a directory nor s3://bucket: use one of them")
        return _usable(Path(url).expanduser().absolute(), url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/") or parts.query or parts.fragment:
        raise BadInput(f"store URL {url!r} is not a local directory: write it like file:///var/lib/edgeloop")
    return _usable(Path(unquote(parts.path)), url)


def _usable(path: Path, url: str) -> Path:
    if path.exists() and not path.is_dir():
        raise BadInput(f"store URL {url!r} is a file: give a directory")
    return path
