"""A small fleet for tests of rollouts: real state, roster and decisions, a plain channel, and nodes that obey it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from edgeloop.clients.broker import Broker, MemoryHub
from edgeloop.fleet.channel import NotApproved, Pointing, Rings
from edgeloop.fleet.rollout import RolloutStatus, describe_rollout, start, tick
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.samples.cohorts import switches
from edgeloop.samples.records import Report, digest, now
from edgeloop.samples.releases import Wanted
from edgeloop.samples.service import Service
from edgeloop.samples.topics import report_topic
from edgeloop.store import FleetStore
from tests.unit.samples.broken import Fuse, Guarded

OLD, NEW, NEXT, LAST = [digest(f"release {n}".encode()) for n in range(4)]
NAMES = {OLD: "old", NEW: "new", NEXT: "next", LAST: "last"}


class PlainRings:
    """The channel without signatures: what may run, and what each ring is to run."""

    def __init__(self) -> None:
        self.approved = {OLD, NEW, NEXT, LAST}
        self.records: dict[int, Wanted] = {}
        self.moved: dict[str, int] = {}
        self.commits = 0

    def allowed(self, service: str, release: str) -> bool:
        return release in self.approved

    def wanted(self, service: str, ring: int) -> Wanted | None:
        return self.records.get(ring)

    def point(self, service: str, ring: int, release: str) -> tuple[Wanted, bool]:
        return self.point_many(service, {ring: Pointing(release)})[ring]

    def point_many(self, service: str, rings: Mapping[int, Pointing]) -> dict[int, tuple[Wanted, bool]]:
        named = {n for to in rings.values() for n in (to.release, to.next.release if to.next else to.release)}
        if named - self.approved:
            raise NotApproved(f"release {min(named - self.approved)} of {service} is not approved")
        found = {ring: self._pointed(service, ring, to) for ring, to in rings.items()}
        self.commits += any(is_new for _, is_new in found.values())
        self.records |= {ring: record for ring, (record, _) in found.items()}
        return found

    def _pointed(self, service: str, ring: int, to: Pointing) -> tuple[Wanted, bool]:
        old = self.records.get(ring)
        if old and (old.release, old.next) == (to.release, to.next):
            return old, False
        sequence = old.sequence + 1 if old else 1
        return Wanted(service=service, ring=ring, release=to.release, sequence=sequence, next=to.next), True

    def move(self, fleet: str, asked: Callable[[], Mapping[str, int | None]]) -> bool:
        before, changes = self.moved, asked()
        self.moved = {node: ring for node, ring in {**before, **changes}.items() if ring is not None}
        return self.moved != before

    def refresh(self) -> list[str]:
        return []


@dataclass
class Node:
    """A node that does as its ring's record says, unless it cannot."""

    name: str
    ring: int
    serving: str | None = None
    staged: str | None = None
    refused: str | None = None
    online: bool = True
    has_moved: bool = False
    home: int | None = None
    """Ring of its node.yaml, while the channel names another."""
    cannot: set[str] = field(default_factory=set)
    extra: dict[str, Any] = field(default_factory=dict)

    def go(self, to: int | None) -> None:
        """Be in the ring that the channel names."""
        home = self.ring if self.home is None else self.home
        ring = home if to is None else to
        self.has_moved |= ring != self.ring
        self.ring, self.home = ring, None if to is None else home

    def follow(self, record: Wanted | None) -> None:
        """Stage what is on its way, and run what is wished."""
        self.refused = None
        if record is None:
            return
        coming = record.next
        if coming and coming.release in self.cannot:
            self.refused = coming.release
            return
        self.staged = coming.release if coming else None
        wish = coming.release if coming and switches(coming.salt, self.name, coming.below) else record.release
        if wish in self.cannot:
            self.refused = wish
        else:
            self.serving = wish


class World:
    """Service, store, channel, broker, nodes and a clock of its own."""

    def __init__(self, service: Service, rings: Mapping[str, int], url: str = "sqlite://") -> None:
        self.service = service
        self.url = url
        self.fleet = FleetStore(url)
        self.channel = PlainRings()
        self.broker = MemoryHub().connect("test")
        self.nodes = {name: Node(name, ring) for name, ring in rings.items()}
        self.at = now()
        for release, version in NAMES.items():
            self.fleet.add_release(service.name, version, release)

    def close(self) -> None:
        self.broker.close()
        self.fleet.close()

    @property
    def rings(self) -> Rings:
        """The channel, as far as rollouts use it."""
        return cast(Rings, self.channel)

    @property
    def store(self) -> StateStore:
        return StateStore(self.fleet.database)

    def status(self) -> RolloutStatus:
        return describe_rollout(self.fleet, self.service.name)

    def start(self, release: str, **more: Any) -> bool:
        return start(self.fleet, self.rings, self.service, release, "why", more.pop("who", "ann"), at=self.at, **more)

    def say(self, node: Node) -> None:
        values = {"serving": node.serving, "staged": node.staged, "refused": node.refused, "online": node.online}
        error = "it cannot" if node.refused else None
        base = {"node": node.name, "ring": node.ring, "service": self.service.name, "at": self.at, "last_error": error}
        one = Report.model_validate(base | values | node.extra)
        self.broker.publish(report_topic(node.name, self.service.name), one.model_dump_json().encode(), retain=True)

    def follow(self, *names: str) -> None:
        """These nodes, or all, read the channel, do as it says, and report; those that are away do nothing."""
        for node in self.nodes.values():
            if node.online and (not names or node.name in names):
                node.go(self.channel.moved.get(node.name))
                node.follow(self.channel.records.get(node.ring))
                self.say(node)

    def switch_off(self, name: str) -> None:
        self.nodes[name].online = False
        self.say(self.nodes[name])

    def pass_time(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    def tick(self, seconds: float = 1.0, **parts: Any) -> RolloutStatus | None:
        self.pass_time(seconds)
        found = tick(
            parts.get("fleet", self.fleet),
            cast(Rings, parts.get("channel", self.channel)),
            cast(Broker, parts.get("broker", self.broker)),
            lambda _: self.service,
            self.at,
        )
        return found[-1] if found else None

    def run(self, seconds: float = 1.0, limit: int = 60) -> RolloutStatus:
        """Tick and follow until it ends, or only a person moves it."""
        for _ in range(limit):
            self.tick(seconds)
            self.follow()
            status = self.status()
            if status.has_ended or status.waits in {"person", "pause", "approval"}:
                return status
        raise AssertionError(f"did not end: {self.status()}")

    def delivered(self, release: str) -> None:
        assert self.start(release)
        status = self.run()
        assert status.state == "done", status

    def channel_says(self) -> list[str]:
        """What each ring runs, and behind a slash what is on its way."""
        records = [self.channel.records.get(ring) for ring in self.service.rings]
        return [f"{NAMES[r.release]}{'/' + NAMES[r.next.release] if r.next else ''}" if r else "-" for r in records]

    def served(self) -> list[str]:
        return [NAMES.get(node.serving or "", "-") for node in self.nodes.values()]

    def view(self) -> Any:
        saved = self.store.newest(self.service.name)
        assert saved is not None
        return saved.view


class Wired(Guarded):
    """A fleet store of which every write passes the fuse first; a crash at a read is one at the write after it."""

    def __init__(self, fleet: FleetStore, fuse: Fuse) -> None:
        super().__init__(fleet, fuse)
        self.database = Guarded(fleet.database, fuse, "writing", "insert")


class Hooked:
    """Stands before ``part`` and calls ``hook`` once, before the call with number ``after`` to the methods named."""

    def __init__(self, part: Any, hook: Callable[[], None], *names: str) -> None:
        self._part = part
        self._hook = hook
        self._names = names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name not in self._names:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self._hook()
            return found(*args, **kwargs)

        return call


def of_day(hour: int) -> datetime:
    """This hour of tomorrow, UTC."""
    return (now() + timedelta(days=1)).replace(hour=hour, minute=0, second=0, microsecond=0)
