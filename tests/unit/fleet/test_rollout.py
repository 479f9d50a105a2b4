"""A release goes ring by ring, a refused one is taken back, and whoever is cut off, the next one continues."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from edgeloop.clients.broker import Broker, BrokerUnavailable, MemoryHub, Message
from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.channel import open_channel
from edgeloop.fleet.rollout import RolloutStatus, RolloutUnfinished, describe_rollout, run_to_end, start, tick
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.samples.records import Report, now
from edgeloop.samples.releases import Release, release_key
from edgeloop.samples.topics import report_topic
from edgeloop.store import FleetStore
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import regressor

SERVICE = regressor(rings=[0, 1, 2])


def manifest(version: str, service: str = "rater") -> Release:
    return Release(service=service, version=version, run_id="r", dataset="d", layers=[])


RELEASES = [manifest("0"), manifest("1"), manifest("2"), manifest("0", "other")]
OLD, NEW, NEXT, OTHER = [release.digest for release in RELEASES]


def report(node: str = "n1", ring: int = 0, **changes: Any) -> Report:
    values: dict[str, Any] = {"node": node, "ring": ring, "service": "rater", "at": now()}
    return Report.model_validate(values | changes)


class World:
    """A fleet of nodes that do as the channel says, except those that are told otherwise."""

    def __init__(self, folder: Path, rings: dict[str, int] | None = None, store: MemoryStore | None = None) -> None:
        self.url = f"sqlite:///{folder / 'fleet.db'}"
        self.fleet = FleetStore(self.url)
        self.store = store or MemoryStore()
        self.keys = folder / "keys"
        self.publisher = open_channel(self.store, self.keys)
        for release in RELEASES:
            self.store.put(release_key(release.service, release.digest), release.to_bytes())
            self.publisher.approve(release.service, release.digest)
        self.hub = MemoryHub()
        self.broker = self.hub.connect("test")
        self.rings = {"n0": 0, "n1": 1, "n2": 2} if rings is None else rings
        self.serving: dict[str, str | None] = {}
        self.refusing: dict[str, str] = {}
        self.ahead = timedelta(0)
        for number, digest in enumerate((OLD, NEW, NEXT)):
            self.fleet.add_release("rater", str(number), digest)

    def copy(self, folder: Path) -> World:
        """Another world that went so far; this one must be closed."""
        folder.mkdir()
        for name in ("fleet.db", "keys"):
            path = self.keys.parent / name
            if path.is_dir():
                shutil.copytree(path, folder / name)
            else:
                shutil.copy(path, folder / name)
        store = MemoryStore()
        for found in self.store.list(""):
            store.put(found.key, self.store.get(found.key))
        other = World(folder, dict(self.rings), store)
        other.serving = dict(self.serving)
        other.nodes_follow()
        return other

    def close(self) -> None:
        self.fleet.close()

    def say(self, one: Report) -> None:
        one = one.model_copy(update={"at": one.at + self.ahead})
        self.broker.publish(report_topic(one.node, one.service), one.model_dump_json().encode(), retain=True)

    def nodes_follow(self) -> None:
        """Every node reads its channel, switches or refuses, and reports."""
        for node, ring in self.rings.items():
            record = self.publisher.wanted("rater", ring)
            refused = None
            if record and self.refusing.get(node) == record.release:
                refused = record.release
            elif record:
                self.serving[node] = record.release
            self.say(report(node, ring, serving=self.serving.get(node), refused=refused, last_error="bad probe"))

    def channel(self) -> list[str | None]:
        records = [self.publisher.wanted("rater", ring) for ring in SERVICE.rings]
        return [r.release if r else None for r in records]

    def start(self, digest: str, reason: str = "why") -> bool:
        return start(self.fleet, self.publisher, SERVICE, digest, reason)

    def tick(self, **parts: Any) -> RolloutStatus | None:
        found = tick(
            parts.get("fleet", self.fleet),
            parts.get("channel", self.publisher),
            parts.get("broker", self.broker),
            lambda _: SERVICE,
            now() + self.ahead,
        )
        return found[-1] if found else None

    def to_end(self) -> RolloutStatus:
        for _ in range(20):
            self.tick()
            self.nodes_follow()
            status = describe_rollout(self.fleet, "rater")
            if status.has_ended:
                return status
        raise AssertionError(f"did not end: {status}")

    def delivered(self, digest: str) -> None:
        assert self.start(digest)
        assert self.to_end().state == "done"

    def age(self, seconds: float) -> None:
        """So much time passes."""
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def test_nothing_to_move(world: World) -> None:
    assert tick(world.fleet, world.publisher, world.broker, lambda _: SERVICE) == []
    with pytest.raises(EdgeloopError, match="rater was never rolled out"):
        describe_rollout(world.fleet, "rater")


def test_it_goes_ring_by_ring(world: World) -> None:
    world.delivered(OLD)
    assert world.start(NEW)
    seen = [world.channel()]
    for _ in range(10):
        status = world.tick()
        seen.append(world.channel())
        world.nodes_follow()
        if status is None or status.state == "done":
            break
    steps = [step for at, step in enumerate(seen) if at == 0 or step != seen[at - 1]]
    assert steps == [[OLD, OLD, OLD], [NEW, OLD, OLD], [NEW, NEW, OLD], [NEW, NEW, NEW]]
    assert set(world.serving.values()) == {NEW}
    assert describe_rollout(world.fleet, "rater").state == "done"


def test_a_ring_that_has_not_switched_holds_the_next(world: World) -> None:
    world.start(NEW)
    world.tick()
    world.say(report("n0", 0, serving=OLD))
    for _ in range(3):
        status = world.tick()
        assert status is not None
        assert (status.state, status.wave, status.online, status.switched) == ("moving", 0, 1, 0)
    assert world.channel() == [NEW, None, None]


@pytest.mark.parametrize("refuses", ["n0", "n1", "n2"])
def test_a_refused_release_is_taken_back_everywhere(world: World, refuses: str) -> None:
    world.delivered(OLD)
    world.refusing[refuses] = NEW
    assert world.start(NEW)
    status = world.to_end()
    assert (status.state, status.former) == ("reverted", OLD)
    assert status.reason == f"{refuses}: bad probe"
    assert world.channel() == [OLD, OLD, OLD]
    world.nodes_follow()
    assert set(world.serving.values()) == {OLD}
    [row] = [r for r in world.fleet.history("rater") if r["event"] == "revert"]
    assert (row["verdict"], row["version"], row["former"], row["who"]) == ("fail", "0", "1", "rollout")


def test_a_first_release_that_is_refused_has_nothing_to_go_back_to(world: World) -> None:
    world.refusing["n0"] = NEW
    assert world.start(NEW)
    assert world.to_end().state == "reverted"
    assert world.channel() == [NEW, None, None]


def test_what_was_taken_back_is_not_tried_again_by_itself(world: World) -> None:
    world.delivered(OLD)
    world.refusing["n1"] = NEW
    world.start(NEW)
    world.to_end()
    assert not world.start(NEW)
    assert world.start(NEXT)
    assert world.to_end().state == "done"


def test_an_offline_ring_is_waited_for_and_then_skipped(world: World) -> None:
    world.rings = {"n0": 0, "n2": 2}
    world.start(NEW)
    world.tick()
    world.nodes_follow()
    for _ in range(3):
        status = world.tick()
    assert status is not None
    assert (status.state, status.wave) == ("moving", 1)
    world.age(SERVICE.rollout.absence_seconds + 1)
    status = world.tick()
    assert status is not None
    assert (status.wave, status.rings[1].state) == (2, "skipped")
    assert world.to_end().state == "done"
    world.rings["n1"] = 1
    world.nodes_follow()
    assert world.serving["n1"] == NEW


def test_a_late_node_holds_the_rollout_for_a_person_until_it_comes(world: World) -> None:
    world.rings = {"n0": 0, "late": 0, "n1": 1, "n2": 2}
    world.start(NEW)
    world.tick()
    for seconds, state in ((0.0, "moving"), (SERVICE.rollout.patience_seconds + 1, "holding")):
        world.age(seconds)
        world.say(report("n0", 0, serving=NEW))
        world.say(report("late", 0, serving=OLD))
        status = world.tick()
        assert status is not None
        assert (status.wave, status.state) == (0, state)
        assert "1 of 2 nodes serve it" in status.reason
    world.nodes_follow()
    status = world.tick()
    assert status is not None
    assert (status.wave, status.state) == (1, "moving")


def test_the_first_ring_is_never_skipped(world: World) -> None:
    world.rings = {"n1": 1, "n2": 2}
    world.start(NEW)
    world.tick()
    world.nodes_follow()
    world.age(SERVICE.rollout.patience_seconds + 1)
    status = world.tick()
    assert status is not None
    assert (status.state, status.wave, status.waits) == ("holding", 0, "person")
    assert world.channel() == [NEW, None, None]


def test_starting_again_changes_nothing(world: World) -> None:
    assert world.start(NEW)
    assert not world.start(NEW)
    world.to_end()
    assert not world.start(NEW)
    assert world.channel() == [NEW, NEW, NEW]


def test_a_newer_release_supersedes_one_on_its_way(world: World) -> None:
    world.delivered(OLD)
    world.start(NEW)
    world.tick()
    assert world.start(NEXT)
    assert world.to_end().release == NEXT
    assert world.channel() == [NEXT, NEXT, NEXT]
    assert StateStore(world.fleet.database).open() == []


def test_going_back_to_an_earlier_release_by_hand_is_a_rollout(world: World) -> None:
    for digest in (OLD, NEW, OLD):
        world.delivered(digest)
    assert world.channel() == [OLD, OLD, OLD]


@pytest.mark.parametrize("refuses", ["n0", "n1"])
@pytest.mark.parametrize("ticks", [1, 2])
def test_a_release_that_was_superseded_is_never_gone_back_to(world: World, ticks: int, refuses: str) -> None:
    """NEW was in some rings and on its way; when NEXT fails, every ring belongs to OLD."""
    world.delivered(OLD)
    world.start(NEW)
    for _ in range(ticks):
        world.tick()
        world.nodes_follow()
    world.start(NEXT)
    world.refusing[refuses] = NEXT
    assert world.to_end().state == "reverted"
    assert world.channel() == [OLD, OLD, OLD]


def test_the_sequence_of_a_ring_only_grows(world: World) -> None:
    numbers = []
    for digest in (OLD, NEW, OLD):
        world.delivered(digest)
        record = world.publisher.wanted("rater", 0)
        assert record is not None
        numbers.append(record.sequence)
    assert numbers == [1, 2, 3]


def test_rollouts_of_services_do_not_hold_each_other(world: World) -> None:
    other = regressor(name="other", rings=[0])
    start(world.fleet, world.publisher, other, OTHER, "why")
    world.start(NEW)
    world.say(report("n0", 0, serving=OLD))
    world.say(report("n0", 0, service="other", serving=OTHER))
    services = {"rater": SERVICE, "other": other}
    for states in ({"other": "moving", "rater": "moving"}, {"other": "done", "rater": "moving"}):
        found = {s.service: s.state for s in tick(world.fleet, world.publisher, world.broker, services.__getitem__)}
        assert found == states


def test_without_a_broker_nothing_is_decided(world: World) -> None:
    world.start(NEW)
    world.broker.close()
    with pytest.raises(BrokerUnavailable):
        world.tick()
    assert world.channel() == [None, None, None]
    assert describe_rollout(world.fleet, "rater").state == "moving"


def test_a_report_that_does_not_parse_holds_nobody_up(world: World) -> None:
    for payload in (b"", b"{", b"[]", b"{}", b"\xff"):
        world.hub.route(Message(report_topic(f"odd-{len(payload)}", "rater"), payload, {}, retain=True))
    world.delivered(NEW)


def final(world: World) -> Any:
    """Where everything ended, and what the ledger says; a crash may have made sequences longer."""
    history = [
        (r["event"], r["verdict"], r["reason"], r["version"] or "", r["former"] or "", r["who"])
        for r in world.fleet.history("rater")
    ]
    status = describe_rollout(world.fleet, "rater")
    return world.channel(), status.state, status.wave, status.former, status.reason, sorted(history)


def test_crash_at_every_write_of_the_channel_ends_as_if_there_had_been_none(tmp_path: Path) -> None:
    first = World(tmp_path)
    first.delivered(OLD)
    first.close()

    def run(fuse: Fuse) -> None:
        world = first.copy(tmp_path / f"run-{fuse.left}")
        world.refusing["n1"] = NEW
        parts = {"channel": open_channel(cast(ObjectStore, Guarded(world.store, fuse, "put", "create")), world.keys)}
        try:
            start(world.fleet, parts["channel"], SERVICE, NEW, "why")
            while world.tick(**parts) is not None:
                world.nodes_follow()
        except Crash:
            # Another process continues; the nodes have gone on meanwhile.
            world.fleet.close()
            world.fleet = FleetStore(world.url)
            world.nodes_follow()
            world.start(NEW)
            world.to_end()
        ends.append(final(world))
        world.close()

    ends: list[Any] = []
    assert crash_everywhere(run) > 10
    assert all(end == ends[-1] for end in ends)
    assert ends[-1][1] == "reverted"


def test_run_to_end_follows_to_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.fleet.rollouts.status.time.sleep", lambda _: None)
    world.start(NEW)
    seen: list[int] = []

    def step() -> RolloutStatus:
        status = world.tick()
        world.nodes_follow()
        return status or describe_rollout(world.fleet, "rater")

    assert run_to_end(step, 30, lambda status: seen.append(status.wave)).state == "done"
    assert sorted(seen) == seen
    assert set(seen) == {0, 1, 2}


def test_run_to_end_gives_up_in_time_and_leaves_the_rollout_moving(world: World) -> None:
    world.start(NEW)
    with pytest.raises(RolloutUnfinished, match=r"rollout of rater waits at ring index 0 \(why\)"):
        run_to_end(lambda: describe_rollout(world.fleet, "rater"), 0, lambda _: None)
    assert describe_rollout(world.fleet, "rater").state == "moving"


def test_a_service_that_changes_on_the_way_changes_the_next_rollout_only(world: World) -> None:
    world.start(NEW)
    other = regressor(rings=[0, 1])
    for _ in range(5):
        tick(world.fleet, world.publisher, cast(Broker, world.broker), lambda _: other)
        world.nodes_follow()
    assert describe_rollout(world.fleet, "rater").state == "done"
    assert world.channel() == [NEW, NEW, NEW]


def test_a_release_that_nobody_approved_is_not_rolled_out(world: World) -> None:
    world.delivered(OLD)
    world.publisher.withdraw("rater", NEW)
    assert world.start(NEW)
    status = world.tick()
    assert status is not None
    status = world.tick()
    assert status is not None
    assert (status.state, status.waits) == ("holding", "person")
    assert "is not approved" in status.reason
    assert world.channel() == [OLD, OLD, OLD]
