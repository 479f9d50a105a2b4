"""What travels to one node, at a real agent on the real signed channel of a fleet of some size.

The node looks after every commit that concerns its ring, as if each look met a new state: the most that can travel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeloop.bench.delivery.counted import CountedStore
from edgeloop.bench.delivery.models import SERVICE, Line
from edgeloop.bench.delivery.result import Travelled
from edgeloop.clients.objects import ObjectStore
from edgeloop.edge.releases.agent import Agent
from edgeloop.edge.releases.blobs import Blobs
from edgeloop.edge.releases.channel import Channel
from edgeloop.edge.releases.state import StateFile
from edgeloop.edge.runtime import Runtime
from edgeloop.edge.stats import Stats
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.approvals import APPROVED
from edgeloop.fleet.channel import Pointing
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.cohorts import EVERYONE, NOBODY, place
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Next, Release, Wanted, release_key
from edgeloop.samples.topics import wanted_topic

_NODE = "node-0001"
#: What a promotion says beside an approval: who agreed, and the digest of the twin's report.
_SAID = {"approved": ["someone@example.org"], "twin": [digest(b"a report")]}


class NothingServes(EdgeloopError):
    """The node did not do what the channel says, so what it read means nothing."""


@dataclass(frozen=True)
class Fleet:
    """How large a fleet the channel is of."""

    rings: int = 20
    services: int = 5


class Site:
    """The channel of a fleet, as full of signatures as it can be, and one node of its last ring."""

    def __init__(self, store: ObjectStore, folder: Path, line: Line, fleet: Fleet) -> None:
        self._store = store
        self._fleet = fleet
        self._ring = fleet.rings - 1
        self._service = line.first.service
        self._publisher = Publisher(store, Keys(folder / "keys"))
        self._line = line
        root = self._publisher.ensure()
        self._fill()
        self.counted = CountedStore(store, line.roles)
        channel = Channel(lambda: self.counted, root, folder / "node" / "channel", self._ring)
        state = StateFile(folder / "node")
        stats = Stats([self._service])
        self._agent = Agent(channel, Runtime(1), Blobs(folder / "node"), state, stats, node=_NODE)

    def _fill(self) -> None:
        """Other services, and all the approvals of earlier releases that are kept."""
        for number in range(1, self._fleet.services):
            other = self._line.first.model_copy(update={"service": f"{SERVICE}-{number}"})
            self._approve(other)
            self._publisher.point(other.service, 0, other.digest)
        for number in range(APPROVED):
            self._approve(self._line.first.model_copy(update={"version": f"0.{number}"}))
        self._approve(self._line.first)

    def _approve(self, release: Release) -> None:
        self._store.create(release_key(release.service, release.digest), release.to_bytes())
        self._publisher.approve(release.service, release.digest, _SAID)

    # --- looks

    def look(self, *acts: Callable[[], int]) -> Travelled:
        """What travels to the node when it looks after each of ``acts``; what these return are bytes of nudges."""
        parts: Counter[str] = Counter()
        before = self.counted.requests
        for act in acts or (lambda: 0,):
            self.counted.parts.clear()
            parts["nudge"] += act()
            self._agent.poll(self._service, self.counted)
            parts.update(self.counted.parts)
        found = {name: count for name, count in sorted(parts.items()) if count}
        return Travelled(bytes=sum(found.values()), requests=self.counted.requests - before, parts=found)

    def first(self) -> Travelled:
        """A new node in a fleet that runs the first release."""
        pointing = dict.fromkeys(range(self._fleet.rings), Pointing(self._line.first.digest))
        self._publisher.point_many(self._service, pointing)
        found = self.look()
        self._check(self._line.first)
        return found

    def move(self, to: Release) -> Travelled:
        """``to`` is approved and comes to the node's ring as it does by default: the ring is pointed at it."""
        return self._moved(to, self._pointing(self._ring, Pointing(to.digest)))

    def move_in_batches(self, former: Release, to: Release) -> Travelled:
        """``to`` is approved and comes to the node's ring in two batches, the node's the second: four commits more."""
        salt = digest(to.to_bytes()).removeprefix("sha256:")[:32]
        bounds = (NOBODY, place(salt, _NODE), EVERYONE)
        steps = [Pointing(former.digest, Next(release=to.digest, salt=salt, below=below)) for below in bounds]
        return self._moved(to, *(self._pointing(self._ring, one) for one in (*steps, Pointing(to.digest))))

    def _moved(self, to: Release, *steps: Callable[[], int]) -> Travelled:
        found = self.look(lambda: self._approved(to), *steps)
        self._check(to)
        return found

    def elsewhere(self, former: Release, to: Release) -> Travelled:
        """Ring 0 is moved to ``to`` and back: what a node of another ring reads after one of the commits."""
        self._pointing(0, Pointing(to.digest))()
        found = self.look()
        self._pointing(0, Pointing(former.digest))()
        self.look()
        return found

    def move_all(self, to: Release) -> Travelled:
        """As :meth:`move`, through all rings, the node's the last; the node looks after each commit."""
        return self._moved(to, *(self._pointing(ring, Pointing(to.digest)) for ring in range(self._fleet.rings)))

    def _pointing(self, ring: int, to: Pointing) -> Callable[[], int]:
        def act() -> int:
            record, _ = self._publisher.point_many(self._service, {ring: to})[ring]
            return self._nudge(record) if ring == self._ring else 0

        return act

    def _approved(self, release: Release) -> int:
        self._publisher.approve(self._service, release.digest, _SAID)
        return 0

    def _nudge(self, record: Wanted) -> int:
        return len(record.to_bytes()) + len(wanted_topic(self._service, self._ring))

    def _check(self, release: Release) -> None:
        serving = self._agent.serving(self._service)
        if serving != release.digest:
            why = self._agent.status(self._service)[1]
            raise NothingServes(f"the node serves {serving}, not {release.digest} ({why}): look at its backbone")
