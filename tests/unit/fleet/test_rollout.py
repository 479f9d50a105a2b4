"""A release goes ring by ring, a refused one is taken back, and whoever is cut off, the next one continues."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from edgeloop.clients.broker import Broker, BrokerUnavailable, MemoryHub, Message
from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.channel import open_channel
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.reports import STALE
from edgeloop.fleet.rollout import (
    ABSENCE,
    PATIENCE,
    RolloutStatus,
    RolloutUnfinished,
    describe_rollout,
    judge,
    run_to_end,
    start,
    tick,
)
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


COLLECTED = now()


def report(node: str = "n1", ring: int = 0, **changes: Any) -> Report:
    values: dict[str, Any] = {"node": node, "ring": ring, "service": "rater", "at": now()}
    return Report.model_validate(values | changes)


def old(**changes: Any) -> Report:
    return report(**({"at": now() - STALE - timedelta(seconds=1)} | changes))


@pytest.mark.parametrize(
    ("reports", "since", "outcome", "counts", "reason"),
    [
        ([report(serving=NEW)], 0, "pass", (1, 1), "1 of 1 nodes serve it"),
        ([report(serving=NEW), report("n2", serving=NEW)], 0, "pass", (2, 2), "2 of 2"),
        ([report(serving=NEW), report("n2", serving=OLD)], 0, "wait", (1, 2), "1 of 2 online"),
        ([report(serving=OLD)], 1e6, "wait", (0, 1), "0 of 1 online"),
        ([report(serving=NEW), report("n2", serving=OLD)], 601, "pass", (1, 2), "the others are late"),
        ([report(serving=NEW), report("n2", online=False)], 0, "pass", (1, 1), "1 of 2 nodes"),
        ([report(serving=NEW), old(node="n2")], 0, "pass", (1, 1), "1 of 2 nodes"),
        ([], 0, "wait", (0, 0), "0 of 0"),
        ([], 20, "wait", (0, 0), "0 of 0"),
        ([], 21, "pass", (0, 0), "no node of the ring is online"),
        ([report(online=False, serving=NEW)], 5, "wait", (0, 0), "0 of 0"),
        ([old(serving=OLD)], 21, "pass", (0, 0), "no node of the ring is online"),
        ([report(refused=NEW, last_error="bad probe")], 0, "fail", (0, 1), "n1 gave it up: bad probe"),
        ([report(refused=NEW)], 0, "fail", (0, 1), "n1 gave it up: no reason given"),
        ([report(serving=NEW), report("n2", refused=NEW)], 1e6, "fail", (1, 2), "n2 gave it up"),
        ([old(refused=NEW)], 1e6, "fail", (0, 0), "n1 gave it up"),
        ([report(serving=NEW, refused=OLD)], 0, "pass", (1, 1), "1 of 1"),
    ],
)
def test_judge(reports: list[Report], since: float, outcome: str, counts: tuple[int, int], reason: str) -> None:
    shift = now() - COLLECTED  # the table was made when the tests were collected
    verdict = judge([r.model_copy(update={"at": r.at + shift}) for r in reports], NEW, since)
    assert verdict.outcome == outcome
    assert (verdict.switched, verdict.online) == counts
    assert reason in verdict.reason


def test_the_limits_are_those_of_the_table() -> None:
    assert (ABSENCE.total_seconds(), PATIENCE.total_seconds(), STALE.total_seconds()) == (20, 600, 120)


class World:
    """A fleet of nodes that do as the channel says, except those that are told otherwise."""

    def __init__(self, folder: Path, rings: dict[str, int] | None = None) -> None:
        self.url = f"sqlite:///{folder / 'fleet.db'}"
        self.fleet = FleetStore(self.url)
        self.store = MemoryStore()
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
        for number, digest in enumerate((OLD, NEW, NEXT)):
            self.fleet.add_release("rater", str(number), digest)

    def close(self) -> None:
        self.fleet.close()

    def say(self, one: Report) -> None:
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
        )
        return found[0] if found else None

    def to_end(self) -> RolloutStatus:
        for _ in range(20):
            self.tick()
            self.nodes_follow()
            status = describe_rollout(self.fleet, "rater")
            if status.state != "moving":
                return status
        raise AssertionError(f"did not end: {status}")

    def delivered(self, digest: str) -> None:
        assert self.start(digest)
        assert self.to_end().state == "done"

    def age(self, seconds: float) -> None:
        """The turn of the present ring began so long ago."""
        row = self.fleet.last_rollout("rater")
        assert row is not None
        self.fleet.update_rollout(row["id"], wave_since=now() - timedelta(seconds=seconds))


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
    assert status.reason == f"{refuses} gave it up: bad probe"
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
    world.age(ABSENCE.total_seconds() + 1)
    status = world.tick()
    assert status is not None
    assert status.wave == 2
    assert "no node of the ring is online" in status.reason
    assert world.to_end().state == "done"
    world.rings["n1"] = 1
    world.nodes_follow()
    assert world.serving["n1"] == NEW


def test_one_late_node_does_not_hold_the_fleet_for_ever(world: World) -> None:
    world.rings = {"n0": 0, "late": 0, "n1": 1, "n2": 2}
    world.start(NEW)
    world.tick()
    world.say(report("n0", 0, serving=NEW))
    world.say(report("late", 0, serving=OLD))
    status = world.tick()
    assert status is not None
    assert status.wave == 0
    world.age(PATIENCE.total_seconds() + 1)
    status = world.tick()
    assert status is not None
    assert status.wave == 1


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
    assert world.fleet.open_rollouts() == []


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
    found = {s.service: s.state for s in tick(world.fleet, world.publisher, world.broker, services.__getitem__)}
    assert found == {"other": "done", "rater": "moving"}


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
        (r["event"], r["key"], r["verdict"], r["reason"], r["version"], r["former"])
        for r in world.fleet.history("rater")
    ]
    status = describe_rollout(world.fleet, "rater")
    return world.channel(), status.state, status.wave, status.former, status.reason, sorted(history)


@pytest.mark.parametrize("refuses", [None, "n0", "n1"])
def test_crash_at_every_point_ends_as_if_there_had_been_none(tmp_path: Path, refuses: str | None) -> None:
    def run(fuse: Fuse) -> None:
        folder = tmp_path / str(fuse.left)
        folder.mkdir()
        world = World(folder)
        world.delivered(OLD)
        if refuses:
            world.refusing[refuses] = NEW
        parts = {
            "fleet": Guarded(world.fleet, fuse, "last_rollout", "start_rollout", "update_rollout", "record"),
            "channel": open_channel(cast(ObjectStore, Guarded(world.store, fuse, "put", "create")), world.keys),
            "broker": Guarded(world.broker, fuse, "publish", "collect_retained"),
        }
        try:
            start(cast(FleetStore, parts["fleet"]), cast(Publisher, parts["channel"]), SERVICE, NEW, "why")
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
    assert ends[-1][1] == ("reverted" if refuses else "done")


def test_run_to_end_follows_to_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.fleet.rollout.time.sleep", lambda _: None)
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


def test_a_ring_taken_out_of_the_service_does_not_stop_the_others(world: World) -> None:
    world.start(NEW)
    row = world.fleet.last_rollout("rater")
    assert row is not None
    world.fleet.update_rollout(row["id"], wave=2)
    other = regressor(name="other", rings=[0])
    start(world.fleet, world.publisher, other, OTHER, "why")
    world.say(report("n0", 0, service="other", serving=OTHER))
    services = {"rater": regressor(rings=[0, 1]), "other": other}
    tick(world.fleet, world.publisher, cast(Broker, world.broker), services.__getitem__)
    assert describe_rollout(world.fleet, "other").state == "done"


def test_a_release_that_nobody_approved_is_not_rolled_out(world: World) -> None:
    world.delivered(OLD)
    world.publisher.withdraw("rater", NEW)
    assert world.start(NEW)
    status = world.tick()
    assert status is not None and status.state == "moving" and "is not approved" in status.reason
    assert world.channel() == [OLD, OLD, OLD]
