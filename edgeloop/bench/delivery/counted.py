"""An object store that keeps account of what one node reads of it, by what it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from edgeloop.bench.retrain.counting import CountingStore
from edgeloop.clients.objects import ObjectStore
from edgeloop.samples.records import hexdigest

#: What an object is, by its key; the first that fits.
_KINDS = (
    ("timestamp", r"channel/timestamp\.json"),
    ("snapshot", r"channel/\d+\.snapshot\.json"),
    ("root", r"channel/\d+\.root\.json"),
    ("delegations", r"channel/\d+\.(targets|releases|rings)\.json"),
    ("approvals", r"channel/\d+\.releases-.*\.json"),
    ("rings", r"channel/\d+\.rings-.*\.json"),
    ("record", r"channel/targets/.*"),
    ("manifest", r"releases/.*"),
)


class CountedStore(CountingStore):
    """Another store, and how many bytes were read of it by kind of object. A look for what is missing counts too.

    Args:
        roles: of blobs, by their digest.
    """

    def __init__(self, store: ObjectStore, roles: Mapping[str, str]) -> None:
        super().__init__(store)
        self._roles = {f"blobs/sha256/{hexdigest(name)}": role for name, role in roles.items()}
        self.parts: Counter[str] = Counter()
        self.requests = 0

    def get(self, key: str) -> bytes:
        self._ask()
        return self._noted(key, super().get(key))

    def get_range(self, key: str, start: int, end: int) -> bytes:
        self._ask()
        return self._noted(key, super().get_range(key, start, end))

    def size(self, key: str) -> int | None:
        self._ask()
        return super().size(key)

    def _ask(self) -> None:
        with self._lock:
            self.requests += 1

    def _noted(self, key: str, data: bytes) -> bytes:
        with self._lock:
            self.parts[self._kind(key)] += len(data)
        return data

    def _kind(self, key: str) -> str:
        found = (name for name, pattern in _KINDS if re.fullmatch(pattern, key))
        return self._roles.get(key) or next(found, "other")
