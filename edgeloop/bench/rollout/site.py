"""What a rollout is measured on: a signed channel, two releases of it, and a fleet whose bad nodes are drawn by seed.

Everything that another process has to know is in one file, ``site.json``.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edgeloop.bench.edge_site import HOST, mosquitto
from edgeloop.clients.objects import DirectoryStore, ObjectStore
from edgeloop.errors import BadInput
from edgeloop.fleet.channel import Pointing
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Layer, Release, blob_key, release_key
from edgeloop.samples.service import Feature, Service
from edgeloop.samples.strategy import Strategy

SERVICE = "bench-rollout"
#: Fewer nodes than these in the first ring, and two of a hundred that fail anyway stop a good release too often.
LEAST_FIRST = 40
_FIRST_SHARE = 0.01


class TooFewNodes(BadInput):
    """A fleet that cannot be shared out among its rings."""


class Site(BaseModel):
    """One fleet to measure."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    nodes: int
    rings: int
    offline: float
    failing: float
    seed: int
    port: int
    """Of the broker."""
    old: str
    new: str
    soak: float = 0.0
    """Seconds between a ring's last switch and its verdict."""

    @property
    def broker(self) -> str:
        """Its URL."""
        return f"mqtt://{HOST}:{self.port}"

    @property
    def service(self) -> Service:
        """A service with the default thresholds."""
        return Service(
            version=1,
            name=SERVICE,
            kind="tabular-regressor",
            description="simulated",
            features=[Feature(name="x")],
            target=Feature(name="y"),
            rings=list(range(self.rings)),
            rollout=Strategy(soak_seconds=self.soak),
        )

    @property
    def root(self) -> bytes:
        """What nodes trust."""
        return (self.folder / "root.json").read_bytes()

    @property
    def store(self) -> ObjectStore:
        """Channel and releases."""
        return DirectoryStore(self.folder / "store")

    def publisher(self, store: ObjectStore | None = None) -> Publisher:
        """The channel of ``store``, signed with the site's keys."""
        return Publisher(store or self.store, Keys(self.folder / "keys"))

    def members(self) -> list[Member]:
        """The nodes: of each ring the same share is away, and the same share of the others refuses the new release."""
        draw, found = random.Random(self.seed), list[Member]()
        for ring, size in enumerate(ring_sizes(self.nodes, self.rings)):
            numbers = draw.sample(range(size), size)
            away = round(self.offline * size)
            bad = {*numbers[away : away + round(self.failing * size)]}
            gone = {*numbers[:away]}
            start = len(found)
            found += [Member(f"node-{start + n:05d}", ring, n in gone, n in bad) for n in range(size)]
        return found

    def write(self) -> Path:
        """For other processes."""
        path = self.folder / "site.json"
        path.write_text(self.model_dump_json(), encoding="utf-8")
        return path

    def obeyed(self) -> dict[int, int]:
        """Sequence number of each ring's record that the simulated nodes have obeyed."""
        try:
            return {int(k): v for k, v in json.loads((self.folder / "obeyed.json").read_bytes()).items()}
        except FileNotFoundError:
            return {}


@dataclass(frozen=True)
class Member:
    """One simulated node."""

    name: str
    ring: int
    is_offline: bool
    is_failing: bool


def ring_sizes(nodes: int, rings: int) -> list[int]:
    """Nodes of each ring: 1 % of the fleet and at least 40, then so that each takes the fleet on by one factor.

    With three rings 1 %, 9 % and 90 %.

    Raises:
        TooFewNodes: not one for each ring.
    """
    if nodes < LEAST_FIRST + rings - 1:
        raise TooFewNodes(f"{nodes} nodes are too few for {rings} rings: give at least {LEAST_FIRST + rings - 1}")
    first = max(LEAST_FIRST, math.ceil(nodes * _FIRST_SHARE))
    shares = [_FIRST_SHARE ** (1 - ring / max(1, rings - 1)) for ring in range(rings)]
    ends = [first]
    for ring in range(1, rings):
        fair = first + round((nodes - first) * (shares[ring] - shares[0]) / (1 - shares[0]))
        ends.append(min(max(fair, ends[-1] + 1), nodes - (rings - 1 - ring)))
    ends[-1] = nodes
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


@contextmanager
def made_site(folder: Path, nodes: int, rings: int, offline: float, failing: float, seed: int) -> Iterator[Site]:
    """A broker, and a channel on which every ring runs the old release; the new one may run."""
    ring_sizes(nodes, rings)
    folder.mkdir(parents=True)
    with mosquitto(folder) as port:
        store = DirectoryStore(folder / "store")
        old, new = (_release(store, version).digest for version in ("1", "2"))
        site = Site(
            folder=folder, nodes=nodes, rings=rings, offline=offline, failing=failing, seed=seed, port=port,
            old=old, new=new,
        )  # fmt: skip
        publisher = site.publisher()
        (folder / "root.json").write_bytes(publisher.ensure())
        for release in (old, new):
            publisher.approve(SERVICE, release)
        publisher.point_many(SERVICE, {ring: Pointing(old) for ring in range(rings)})
        site.write()
        yield site


def _release(store: ObjectStore, version: str) -> Release:
    """A manifest with one layer: simulated nodes check what is signed, and load nothing."""
    data = f"model {version}".encode()
    store.create(blob_key(digest(data)), data)
    layer = Layer(role="model", digest=digest(data), size=len(data), media_type="application/octet-stream")
    release = Release(service=SERVICE, version=version, run_id="bench", dataset="none", layers=[layer])
    store.create(release_key(SERVICE, release.digest), release.to_bytes())
    return release


def read_site(path: Path) -> Site:
    """What :meth:`Site.write` wrote."""
    return Site.model_validate_json(path.read_bytes())
