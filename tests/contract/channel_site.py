"""A channel under test: publisher, keys, a clock that can be moved, and nodes that count what they read."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from edgeloop.clients.objects import ObjectStore
from edgeloop.edge.releases.channel import Channel
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import now
from edgeloop.samples.releases import Release, release_key

SERVICE = "rater"


class Site:
    """A store, the keys of its channel, and what a node reads."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self.folder = folder
        self.store = store
        self.keys = Keys(folder / "keys")
        self.late = timedelta()
        self.publisher = self.another()
        self.root = self.publisher.ensure()
        self.releases = [self.put(str(n)) for n in range(3)]
        for one in self.releases:
            self.publisher.approve(SERVICE, one.digest)
        self.gets: list[tuple[str, int]] = []
        self.seconds = 0.0
        self.node = self.channel()

    def another(self, store: ObjectStore | None = None) -> Publisher:
        return Publisher(store or self.store, self.keys, self.now)

    def now(self) -> datetime:
        return now() + self.late

    def put(self, version: str) -> Release:
        release = Release(service=SERVICE, version=version, run_id="r", dataset="d", layers=[])
        self.store.put(release_key(SERVICE, release.digest), release.to_bytes())
        return release

    def channel(self, name: str = "node", root: bytes | None = None, ring: int = 0) -> Channel:
        """A node; another of the same name is the same one after a restart."""
        counted = cast(ObjectStore, Counted(self.store, self.gets))
        folder = self.folder / name
        return Channel(lambda: counted, root or self.root, folder, ring, clock=lambda: self.seconds)

    def point(self, number: int) -> None:
        self.publisher.point(SERVICE, 0, self.releases[number].digest)

    def seen(self, channel: Channel | None = None) -> str | None:
        wanted = (channel or self.node).wanted(SERVICE)
        return wanted.release if wanted else None

    def repository(self) -> Repository:
        return Repository(self.store, self.keys, self.now)


class Counted:
    """Writes down what is read through it: key and bytes."""

    def __init__(self, store: ObjectStore, gets: list[tuple[str, int]]) -> None:
        self._store = store
        self._gets = gets

    def get_range(self, key: str, start: int, end: int) -> bytes:
        try:
            data = self._store.get_range(key, start, end)
        except EdgeloopError:
            self._gets.append((key, 0))
            raise
        self._gets.append((key, len(data)))
        return data
