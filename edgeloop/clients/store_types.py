"""What every object store promises, in types: the protocol, what a listing says, and the ways it can fail.

Apart from the adapters, so that each of them can raise these errors without knowing the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from edgeloop.errors import BadInput, EdgeloopError, Unavailable


class ObjectMissing(EdgeloopError):
    """No object has this key."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(f"no object {key!r} in {url}: it was never written or has been deleted; list its folder")
        self.key = key


class StoreUnavailable(Unavailable):
    """The store did not answer, or answered that it cannot; worth a retry."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"object store {url} cannot be used: {reason}; check that it is up and has room, then retry")


class StoreDenied(EdgeloopError):
    """The store answered, and refused these credentials."""

    def __init__(self, url: str, key: str, reason: str) -> None:
        super().__init__(f"object store {url} refused {key!r}: {reason}; check the credentials and their policy")
        self.key = key


class BucketMissing(BadInput):
    """The store answered, and has no such bucket."""

    def __init__(self, url: str, bucket: str) -> None:
        super().__init__(f"object store {url} has no bucket {bucket!r}: create it, or correct the URL")


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing says of one object; `size` in bytes, `modified` with time zone."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class TableLocation:
    """Where a Delta table lies, as `deltalake` wants to be told; its options hold secrets, so not in repr."""

    uri: str
    storage_options: dict[str, str] = field(default_factory=dict, repr=False)


class ObjectStore(Protocol):
    """Bytes by key. Keys are "/"-separated, without leading slash; every method but `table` may raise
    BadInput (key), StoreUnavailable, StoreDenied and BucketMissing."""

    url: str
    """The store's address, without credentials."""

    def get(self, key: str) -> bytes:
        """The whole object; raises ObjectMissing."""

    def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, without `end`, as far as the object has them; raises ObjectMissing."""

    def put(self, key: str, data: bytes) -> None:
        """Writes the object, or replaces it in one step."""

    def create(self, key: str, data: bytes) -> bool:
        """Writes the object only if the key is free; False if it was taken."""

    def size(self, key: str) -> int | None:
        """Its bytes, or None if there is no such object."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object in the folder `prefix` ("" for all) and below it, sorted by key."""

    def delete(self, key: str) -> None:
        """Removes the object; one that is not there is fine."""

    def move(self, source: str, target: str) -> None:
        """Renames, replacing the target. Source gone and target there means done already; both gone raises
        ObjectMissing."""

    def table(self, prefix: str) -> TableLocation:
        """Where to keep the Delta table of this folder; its commits are conditional writes."""

    def check(self) -> None:
        """Writes, reads and deletes a probe, and sees that a second create is refused."""
