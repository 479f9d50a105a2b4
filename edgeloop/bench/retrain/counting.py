"""An object store that counts what is read of it: unlike seconds, that is the same on every machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from edgeloop.clients.objects import ObjectInfo, ObjectStore, TableLocation


class CountingStore(ObjectStore):
    """Another store, and how many objects or ranges of objects were read of it, and how many bytes."""

    def __init__(self, store: ObjectStore) -> None:
        self.url = store.url
        self.reads = 0
        self.read_bytes = 0
        self._store = store
        self._lock = threading.Lock()

    def _counted(self, data: bytes) -> bytes:
        with self._lock:
            self.reads += 1
            self.read_bytes += len(data)
        return data

    def get(self, key: str) -> bytes:
        return self._counted(self._store.get(key))

    def get_range(self, key: str, start: int, end: int) -> bytes:
        return self._counted(self._store.get_range(key, start, end))

    def put(self, key: str, data: bytes) -> None:
        self._store.put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        return self._store.create(key, data)

    def size(self, key: str) -> int | None:
        return self._store.size(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def delete(self, key: str) -> None:
        self._store.delete(key)

    def move(self, source: str, target: str) -> None:
        self._store.move(source, target)

    def table(self, prefix: str) -> TableLocation:
        return self._store.table(prefix)

    def check(self) -> None:
        self._store.check()
