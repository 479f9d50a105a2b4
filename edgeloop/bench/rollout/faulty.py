"""Faulty releases by the thousand: how far does each come before it is taken back?

The decisions and their SQL are the real ones, in memory; nodes are a few lines, and time is made up. A fault is drawn
by seed: what is wrong, on how many nodes, how bad, who is away, how late nodes are, and in which batches it goes out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from edgeloop.bench.rollout.result import FaultyKind
from edgeloop.bench.rollout.site import ring_sizes
from edgeloop.fleet.channel import Pointing
from edgeloop.fleet.rollouts.decide import decide
from edgeloop.fleet.rollouts.effects import Applied, Effects
from edgeloop.fleet.rollouts.known import gather
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.fleet.rollouts.standing import freeze
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.fleet.rollouts.states import TERMINAL, View, desired
from edgeloop.samples.cohorts import switches
from edgeloop.samples.records import digest
from edgeloop.samples.service import Feature, Service
from edgeloop.samples.strategy import Batch, Strategy
from edgeloop.store import FleetStore

Kind = Literal["does not load", "falls back", "answers with errors", "answers wrongly"]
KINDS: tuple[Kind, ...] = ("does not load", "falls back", "answers with errors", "answers wrongly")
NODES = 200
_RINGS = 3
_OLD, _NEW = digest(b"old"), digest(b"new")
_STEP = timedelta(seconds=30)
_STEPS = 120
_COUNTS = ("answered", "failed", "audited", "agreed")
_BATCHES: tuple[list[Batch], ...] = ([1.0], [5, 0.5], [0.25, 0.5])


@dataclass(frozen=True)
class Fault:
    """What is wrong with a release."""

    kind: Kind
    share: float
    """Of the nodes that have it."""
    rate: float
    """Of their answers that are errors, or wrong."""


def fault_of(draw: random.Random, kind: Kind) -> Fault:
    """One that a fleet must not get: on half of the nodes or more, and plain to see there."""
    return Fault(kind, draw.uniform(0.5, 1.0), draw.uniform(0.4, 0.9))


@dataclass
class Node:
    """A node, and what it counted under the release that it serves."""

    name: str
    ring: int
    away: bool
    has_fault: bool
    late: int
    """Steps until it does as it is told."""
    serving: str = _OLD
    refused: str | None = None
    error: str | None = None
    steps: int = 0
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))

    def obey(self, to: Pointing, fault: Fault) -> None:
        coming = to.next if to.next and switches(to.next.salt, self.name, to.next.below) else None
        wish = coming.release if coming else to.release
        if self.away or wish in {self.serving, self.refused}:
            return
        self.late -= 1
        if self.late >= 0:
            return
        self.refused = wish if self.has_fault and wish == _NEW and fault.kind == "does not load" else None
        if self.refused:
            self.error = "it does not load: simulated"
            return
        self._serve(wish)

    def _serve(self, release: str) -> None:
        self.serving, self.steps, self.counted = release, 0, dict.fromkeys(self.counted, 0)

    def live(self, draw: random.Random, fault: Fault) -> None:
        """Half a minute of answers, a tenth of them audited."""
        if self.away:
            return
        self.steps += 1
        is_bad = self.has_fault and self.serving == _NEW
        if is_bad and fault.kind == "falls back" and self.steps > 2:
            self.error, self.refused = "it crashed three times: simulated", _NEW
            self._serve(_OLD)
            return
        answered = draw.randint(10, 40)
        wrong = fault.rate if is_bad and fault.kind == "answers wrongly" else 0.0
        failed = fault.rate if is_bad and fault.kind == "answers with errors" else 0.005
        audited = answered // 10
        self._count(answered=answered, failed=_some(draw, answered, failed), audited=audited)
        self._count(agreed=audited - _some(draw, audited, max(0.05, wrong)))

    def _count(self, **more: int) -> None:
        for name, count in more.items():
            self.counted[name] += count

    def row(self, service: str, at: datetime) -> dict[str, Any]:
        """What the roster keeps of its report."""
        said = {"node": self.name, "service": service, "ring": self.ring, "said_at": at, "heard_at": at}
        counted = {**self.counted, "histogram": [0] * 10, "p99": None}
        now = {
            "online": not self.away,
            "wanted": None,
            "serving": self.serving,
            "staged": _NEW,
            "refused": self.refused,
        }
        told = {"last_error": self.error, "profile": None, "counted": json.dumps(counted), "payload": ""}
        return {**said, **now, **told}


def _some(draw: random.Random, count: int, rate: float) -> int:
    return sum(draw.random() < rate for _ in range(count))


class World:
    """One rollout of a faulty release on its own fleet."""

    def __init__(self, fleet: FleetStore, seed: int, fault: Fault, draw: random.Random) -> None:
        self._draw, self._fault = draw, fault
        self._service = _service(f"bench-{seed}", draw.choice(_BATCHES))
        self._store = StateStore(fleet.database)
        self._roster = Roster(fleet.database, fleet=f"run-{seed}")
        self._at = datetime(2026, 1, 1, tzinfo=UTC)
        self.nodes = list(self._made())
        stands = dict.fromkeys(range(_RINGS), _OLD)
        self._store.begin(freeze(self._service, _NEW, "measured", "bench", stands, _OLD), self._at)
        self.touched: set[str] = set()
        """Nodes that were told to switch."""

    def _made(self) -> Iterator[Node]:
        draw = self._draw
        for ring, size in enumerate(ring_sizes(NODES, _RINGS)):
            for number in range(size):
                away, bad = draw.random() < 0.1, draw.random() < self._fault.share
                yield Node(f"{ring}-{number}", ring, away, bad, draw.choice((0, 0, 0, 1, 2)))

    def play(self) -> View:
        """Until the rollout ends; where it stands at last."""
        for _ in range(_STEPS):
            view = self._step()
            if view.state in TERMINAL:
                break
        return view

    def _step(self) -> View:
        self._at += _STEP
        saved, _ = self._store.opened(self._service.name)
        assert saved is not None
        self._live(desired(saved.view))
        rows = [node.row(self._service.name, self._at) for node in self.nodes if not node.away or self._at.minute == 0]
        self._roster.note(rows, [], at=self._at, complete=True)
        no_target = cast(Effects, None)  # nodes' reports say it all
        facts = gather(saved.view, self._roster, no_target, Applied(True), self._at, complete=True, newer=False)
        decision = decide(saved.view, facts, self._at)
        if decision.view != saved.view:
            self._store.save(saved, decision.view, decision.events, self._at)
        return decision.view

    def _live(self, wishes: Mapping[int, Pointing]) -> None:
        for node in self.nodes:
            to = wishes[node.ring]
            if to.release == _NEW or (to.next and switches(to.next.salt, node.name, to.next.below)):
                self.touched.add(node.name)
            node.obey(to, self._fault)
            node.live(self._draw, self._fault)

    def beyond(self) -> int:
        """Nodes outside of the first ring that were told to switch, or that serve the release."""
        return sum(n.ring > 0 and (n.name in self.touched or n.serving == _NEW) for n in self.nodes)


def _service(name: str, batches: list[Batch]) -> Service:
    return Service(
        version=1,
        name=name,
        kind="tabular-classifier",
        description="simulated",
        features=[Feature(name="x")],
        labels=["no", "yes"],
        rings=list(range(_RINGS)),
        rollout=Strategy(batches=batches),
    )


def play_faulty(runs: int, seed: int) -> list[FaultyKind]:
    """So many faulty releases, all kinds in turn: what became of each kind."""
    found = {kind: FaultyKind(kind=kind) for kind in KINDS}
    for number in range(runs):
        draw = random.Random(f"{seed} {number}")
        kind = KINDS[number % len(KINDS)]
        _play(found[kind], number, fault_of(draw, kind), draw)
    return list(found.values())


def play_rare(runs: int, seed: int) -> FaultyKind:
    """Releases that a tenth of the nodes cannot load: 5 % may fail, and so few of the first ring may be among them."""
    found = FaultyKind(kind="a tenth does not load")
    for number in range(runs):
        draw = random.Random(f"rare {seed} {number}")
        _play(found, number, Fault("does not load", 0.1, 1.0), draw)
    return found


def _play(found: FaultyKind, number: int, fault: Fault, draw: random.Random) -> None:
    fleet = FleetStore("sqlite://")
    try:
        world = World(fleet, number, fault, draw)
        view = world.play()
    finally:
        fleet.close()
    beyond = world.beyond()
    found.runs += 1
    found.states[view.state] = found.states.get(view.state, 0) + 1
    found.beyond_first_ring += beyond > 0
    found.nodes_beyond += beyond
    found.most_touched = max(found.most_touched, len(world.touched))
