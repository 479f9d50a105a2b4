"""Nodes of one ring on one store with its signed channel; their models are fakes, and everything else is theirs."""

from __future__ import annotations

from pathlib import Path

from tuf.api.metadata import TargetFile

from edgeloop.clients.objects import MemoryStore, StoreUnavailable
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.downloads import Downloads
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.releases.place import Place
from edgeloop.edge.releases.state import Refused, StateFile
from edgeloop.edge.runtime import TRIAL, ModelFailed, Runtime
from edgeloop.edge.stats import Stats
from edgeloop.fleet.channel import Pointing
from edgeloop.fleet.draft import Draft
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.repository import Repository
from edgeloop.fleet.signing import Keys
from edgeloop.samples.cohorts import EVERYONE, NOBODY, bound, switches
from edgeloop.samples.records import digest, hexdigest, now
from edgeloop.samples.releases import Next, Release, Role, Wanted, blob_key, wanted_object, wanted_target
from tests.unit.edge.fakes import SERVICE

NODES = ("n1", "n2", "n3")


class CutStore(MemoryStore):
    """Writes down what is read of it, and can be away: all of it, or all keys but those that begin with ``leaves``."""

    def __init__(self) -> None:
        super().__init__()
        self.gets: list[str] = []
        self.away = False
        self.leaves: str | None = None

    def get_range(self, key: str, start: int, end: int) -> bytes:
        self.gets.append(key)
        if self.away and not (self.leaves and key.startswith(self.leaves)):
            raise StoreUnavailable("memory:", "away")
        return super().get_range(key, start, end)

    def flip(self, key: str) -> bytes:
        """Spoil the object; its bytes before."""
        whole = self.get(key)
        self.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
        return whole


class RingNode:
    """One node; :meth:`boot` is also what a restart after a kill does."""

    def __init__(self, ring: Ring, name: str, profile: str | None = None, home: int = 0) -> None:
        self.ring = ring
        self.name = name
        self.profile = profile
        self.home = home
        self.folder = ring.folder / name
        self.changes = 0
        self.rate: int | None = None
        self.boot()

    def boot(self) -> None:
        self.runtime = Runtime(1)
        self.stats = Stats([SERVICE])
        self.blobs = Blobs(self.folder, Downloads(self.rate, parallel=1, sleep=lambda _: None), self.profile)
        self.state = StateFile(self.folder)
        self.place = Place(self.home, self.name, moved_to=self.state.state.moved_to, on_move=self.state.move)
        self.channel = Channel(lambda: self.ring.store, self.ring.root, self.folder / "channel", self.place)
        self.agent = Agent(
            self.channel,
            self.runtime,
            self.blobs,
            self.state,
            self.stats,
            node=self.name,
            loader=Loader(profile=self.profile),
            changed=self._changed,
            wall=lambda: self.ring.wall,
            monotonic=lambda: self.ring.uptime,
        )
        self.agent.boot([SERVICE])

    def _changed(self) -> None:
        self.changes += 1

    def poll(self) -> bool:
        self.ring.store.gets.clear()
        return self.agent.poll(SERVICE, self.ring.store)

    @property
    def serving(self) -> str | None:
        return self.agent.serving(SERVICE)

    @property
    def staged(self) -> str | None:
        return self.agent.staged(SERVICE)

    @property
    def given_up(self) -> Refused | None:
        return self.agent.status(SERVICE)[0].given_up

    def holds(self, release: Release) -> bool:
        """Whether all of it is on the disk."""
        return self.blobs.kept(release.digest) is not None and all(
            (self.folder / "blobs" / "sha256" / hexdigest(layer.digest)).is_file() for layer in release.layers
        )

    def ask(self, times: int = TRIAL) -> None:
        """Inputs come; some releases fail on them."""
        for _ in range(times):
            try:
                self.runtime.predict(SERVICE, b"[0.5,0.5]")
            except ModelFailed:
                continue


class Ring:
    """Store, channel and clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = CutStore()
        self.keys = Keys(folder / "keys")
        self.publisher = Publisher(self.store, self.keys)
        self.root = self.publisher.ensure()
        self.wall = 1_000_000.0
        self.uptime = 50.0
        self._approved: set[str] = set()

    def nodes(self, *names: str) -> list[RingNode]:
        return [RingNode(self, name) for name in names or NODES]

    def node(self, name: str = "n1", profile: str | None = None) -> RingNode:
        return RingNode(self, name, profile)

    def approve(self, release: Release) -> None:
        """Once: a store that is spoilt later is not asked again."""
        if release.digest not in self._approved:
            self.publisher.approve(SERVICE, release.digest)
            self._approved.add(release.digest)

    def run(self, release: Release) -> Wanted:
        """The whole ring is to run it, and nothing else is on its way."""
        self.approve(release)
        return self.publisher.point(SERVICE, 0, release.digest)[0]

    def bring(self, base: Release, coming: Release, below: str = NOBODY, salt: str = "s") -> Wanted:
        """A rollout of ``coming`` has come so far."""
        self.approve(coming)
        to = Pointing(base.digest, Next(release=coming.digest, salt=salt, below=below))
        return self.publisher.point_many(SERVICE, {0: to})[0][0]

    def sign(self, record: Wanted) -> None:
        """Sign a record of any kind, as an older or a newer cloud would."""
        data, path = record.to_bytes(), wanted_target(SERVICE, 0)

        def change(draft: Draft) -> bool:
            target = TargetFile(len(data), {"sha256": hexdigest(digest(data))}, path)
            draft.edit(f"rings-{SERVICE}").targets[path] = target
            draft.contents[wanted_object(SERVICE, 0, digest(data))] = data
            return True

        Repository(self.store, self.keys, now).commit(change)


def asked(gets: list[str], release: Release) -> list[str]:
    """Which keys of ``release`` were read."""
    keys = {blob_key(layer.digest) for layer in release.layers}
    return [key for key in gets if key in keys or hexdigest(release.digest) in key]


def key_of(release: Release, role: Role = "model") -> str:
    layer = release.layer(role)
    assert layer is not None
    return blob_key(layer.digest)


def first(salt: str = "s") -> str:
    """The node of NODES that a batch of one is made of."""
    return next(name for name in NODES if switches(salt, name, bound(salt, NODES, 1)))


__all__ = ["EVERYONE", "NOBODY", "NODES", "CutStore", "Ring", "RingNode", "asked", "bound", "first", "key_of"]
