"""The fake store: the promises of the real ones in a dictionary, for tests and for a look around."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from edgeloop.clients.store_keys import check_range, checked, folder_of, nesting_refused, probe, table_folder
from edgeloop.clients.store_types import ObjectInfo, ObjectMissing, ObjectStore, TableLocation


class MemoryStore(ObjectStore):
    """The fake: the same promises in a dictionary. Tables go to a folder that is deleted with the store."""

    url = "memory"

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, datetime]] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes:
        found = self._objects.get(checked(key))
        if found is None:
            raise ObjectMissing(self.url, key)
        return found[0]

    def get_range(self, key: str, start: int, end: int) -> bytes:
        check_range(key, start, end)
        return self.get(key)[start:end]

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._write(checked(key), data)

    def create(self, key: str, data: bytes) -> bool:
        with self._lock:
            if checked(key) in self._objects:
                return False
            self._write(key, data)
            return True

    def size(self, key: str) -> int | None:
        found = self._objects.get(checked(key))
        return None if found is None else len(found[0])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = folder_of(prefix)
        with self._lock:
            found = sorted((key, *rest) for key, rest in self._objects.items() if key.startswith(folder))
        return iter([ObjectInfo(key, len(data), at) for key, data, at in found])

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(checked(key), None)

    def move(self, source: str, target: str) -> None:
        with self._lock:
            found = self._objects.get(checked(source))
            if found is None:
                if checked(target) not in self._objects:
                    raise ObjectMissing(self.url, source)
            elif source != checked(target):
                self._write(target, found[0])
                del self._objects[source]

    def table(self, prefix: str) -> TableLocation:
        return TableLocation(str(self._tables() / table_folder(prefix, self.url)))

    def check(self) -> None:
        probe(self)

    def _write(self, key: str, data: bytes) -> None:
        folders = [key[:at] for at, letter in enumerate(key) if letter == "/"]
        if any(folder in self._objects for folder in folders):
            raise nesting_refused(self.url, key)
        if any(other.startswith(key + "/") for other in self._objects):
            raise nesting_refused(self.url, key)
        self._objects[key] = (bytes(data), datetime.now(UTC))

    def _tables(self) -> Path:
        with self._lock:
            if not hasattr(self, "_table_root"):
                self._table_root = tempfile.mkdtemp(prefix="edgeloop-tables-")
                weakref.finalize(self, shutil.rmtree, self._table_root, True)
        return Path(self._table_root)
