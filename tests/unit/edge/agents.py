"""One node's agent on the signed channel of a store that counts what is read of it and can be away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.clients.objects import MemoryStore, StoreUnavailable
from edgeloop.edge.releases import loading
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.downloads import Downloads
from edgeloop.edge.releases.state import StateFile
from edgeloop.edge.runtime import TRIAL, Runtime
from edgeloop.edge.stats import Stats
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.releases import Release, blob_key, metadata_key
from tests.unit.edge.fakes import SERVICE, load_fake

TIMESTAMP = metadata_key("timestamp.json")


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.gets: list[str] = []
        self.away = False

    def get(self, key: str) -> bytes:
        if self.away:
            raise StoreUnavailable("memory:", "away")
        return super().get(key)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        self.gets.append(key)
        return super().get_range(key, start, end)


class Site:
    """A store that counts and can be away, the signed channel in it, and one node's agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = CountingStore()
        self.publisher = Publisher(self.store, Keys(folder / "keys"))
        self.root = self.publisher.ensure()
        self.changes = 0
        self.wall = 1_000_000.0
        self.uptime = 50.0
        self.boot()

    def boot(self) -> None:
        self.runtime = Runtime(1)
        self.stats = Stats([SERVICE])
        self.channel = Channel(lambda: self.store, self.root, self.folder / "channel", 0)
        self.agent = Agent(
            self.channel,
            self.runtime,
            Blobs(self.folder, Downloads(sleep=lambda _: None)),
            StateFile(self.folder),
            self.stats,
            changed=self._changed,
            wall=lambda: self.wall,
            monotonic=lambda: self.uptime,
        )
        self.agent.boot([SERVICE])

    def _changed(self) -> None:
        self.changes += 1

    def poll(self) -> bool:
        return self.agent.poll(SERVICE, self.store)

    def want(self, release: Release) -> None:
        self.publisher.approve(SERVICE, release.digest)
        self.publisher.point(SERVICE, 0, release.digest)
        self.store.gets.clear()

    def roll_out(self, release: Release) -> bool:
        self.want(release)
        return self.poll()

    def prove(self) -> None:
        """The release in service passes its trial."""
        loaded = self.runtime.loaded(SERVICE)
        assert loaded is not None
        for _ in range(TRIAL):
            self.runtime.predict(SERVICE, b"[1, 0]")
        assert not loaded.on_trial

    def blobs(self) -> set[str]:
        return {p.name for p in (self.folder / "blobs" / "sha256").iterdir()}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(loading, "load_model", load_fake)
    made = Site(tmp_path)
    yield made
    made.runtime.close()


def layer_key(release: Release) -> str:
    layer = release.layer("model")
    assert layer is not None
    return blob_key(layer.digest)


def layer_name(release: Release) -> str:
    return layer_key(release).rsplit("/", 1)[1]
