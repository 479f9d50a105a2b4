"""Promotions over the real rollout machine and the real signed channel: what people do reaches the rings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeloop.clients.broker import MemoryHub
from edgeloop.clients.objects import MemoryStore
from edgeloop.clients.registry import ModelVersion
from edgeloop.errors import BadInput
from edgeloop.fleet.channel import open_channel
from edgeloop.fleet.rollout import revert as undo
from edgeloop.fleet.rollout import rollback, tick
from edgeloop.promotion.acts import reject, revert
from edgeloop.promotion.fleeting import ChannelSigner, RingRollouts
from edgeloop.promotion.records import Rollout
from edgeloop.samples.records import Report, now
from edgeloop.samples.releases import Release, release_key
from edgeloop.samples.service import Service
from edgeloop.samples.topics import report_topic
from tests.unit.promotion.world import World


class Rings(World):
    """Two rings of a node each, which do as the channel says."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store = MemoryStore()
        self.channel = open_channel(self.store, folder / "keys")
        self.broker = MemoryHub().connect("test")
        self.refuses: set[str] = set()
        rollouts, signer = RingRollouts(self.fleet, self.channel), ChannelSigner(self.channel)
        self.parts = replace(self.parts, builder=self, rollouts=rollouts, signer=signer)

    def build(self, service: Service, version: ModelVersion) -> str:
        made = manifest(version.version)
        self.store.create(release_key(service.name, made.digest), made.to_bytes())
        self.fleet.add_release(service.name, version.version, made.digest)
        return made.digest

    def runs(self) -> list[str | None]:
        """The version that each ring shall run."""
        records = [self.channel.wanted("rater", ring) for ring in self.service.rings]
        return [self.fleet.version_of("rater", r.release) if r else None for r in records]

    def nodes_follow(self) -> None:
        for ring in self.service.rings:
            record = self.channel.wanted("rater", ring)
            wanted = record.release if record else None
            refused = wanted if wanted in self.refuses else None
            said = Report(
                node=f"n{ring}",
                ring=ring,
                service="rater",
                at=now(),
                wanted=wanted,
                serving=None if refused else wanted,
            ).model_copy(update={"refused": refused, "last_error": "bad probe" if refused else None})
            self.broker.publish(report_topic(said.node, "rater"), said.model_dump_json().encode(), retain=True)

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            tick(self.fleet, self.channel, self.broker, lambda _: self.service)
            self.nodes_follow()

    def out(self, version: str) -> None:
        self.set(version)
        self.tick(6)
        self.reconcile()
        assert self.runs() == [version, version]

    def newest(self) -> Rollout:
        found = self.parts.rollouts.newest("rater")
        assert found is not None
        return found


def manifest(version: str) -> Release:
    return Release(service="rater", version=version, run_id="r", dataset="d", layers=[])


@pytest.fixture
def world(tmp_path: Path) -> Rings:
    made = Rings(tmp_path)
    made.service = made.service.model_copy(update={"rings": [0, 1]})
    made.out("1")
    return made


def test_a_champion_reaches_every_ring(world: Rings) -> None:
    world.out("2")
    assert (world.newest().state, world.newest().former_version) == ("done", "1")
    promoted = [row[1:4] for row in world.ledger() if row[0] == "promotion"]
    assert promoted == [("1", None, "alias"), ("2", "1", "alias")]


@pytest.mark.parametrize("how", ["reject", "revert", "deleted", "moved back"])
def test_what_is_stopped_in_ring_0_never_reaches_ring_1(world: Rings, how: str) -> None:
    world.set("2")
    tick(world.fleet, world.channel, world.broker, lambda _: world.service)
    assert world.runs() == ["2", "1"]
    if how in {"reject", "revert"}:
        (reject if how == "reject" else revert)(world.parts, world.service, "alice", "wrong")
        world.reconcile()
    else:
        world.set(None if how == "deleted" else "1")
    assert world.newest().state == "reverting"
    world.tick(3)
    assert world.runs() == ["1", "1"]
    found = world.reconcile()
    assert world.champion() == (None if how == "deleted" else "1")
    assert found.state == ("withdrawn" if how == "deleted" else "released")
    world.tick(3)
    assert world.newest().state == "reverted", "no rollout was begun for the way back"


def test_a_release_that_nodes_refuse_leaves_the_alias(world: Rings) -> None:
    world.refuses = {manifest("2").digest}
    world.set("2")
    world.tick(4)
    assert world.runs() == ["1", "1"]
    found = world.reconcile()
    assert (world.champion(), found.version, found.state) == ("1", "1", "released")
    assert world.set("2").started, "the alias was elsewhere, and somebody means it"


def test_a_version_that_waits_its_turn_is_rejected_with_what_is_before_it(world: Rings) -> None:
    world.set("2")
    world.tick()
    world.set("3")
    reject(world.parts, world.service, "alice", "no")
    world.tick(4)
    world.reconcile()
    assert (world.runs(), world.champion()) == (["1", "1"], "1")


def test_a_version_whose_turn_a_person_took_away_leaves_the_alias(world: Rings) -> None:
    world.set("2")
    world.tick()
    world.set("3")
    undo(world.fleet, "rater", "alice", "all of it")
    world.tick(4)
    world.reconcile()
    assert (world.runs(), world.champion()) == (["1", "1"], "1")
    refused = world.promotions.newest_of("rater", "3")
    assert refused is not None
    assert refused.reason == "its rollout was dropped before its turn"


def test_an_alias_that_comes_back_to_what_is_under_way_lets_it_go_on(world: Rings) -> None:
    world.set("2")
    world.tick()
    world.set("3")
    assert world.set("2").state == "released"
    world.tick(6)
    world.reconcile()
    assert (world.runs(), world.champion()) == (["2", "2"], "2")


def test_a_rollback_takes_the_alias_with_it(world: Rings) -> None:
    world.out("2")
    rollback(world.fleet, world.channel, world.service, "alice", "worse")
    world.tick(6)
    world.reconcile()
    assert (world.runs(), world.champion()) == (["1", "1"], "1")
    assert world.reconcile().state == "released"


def test_a_release_without_its_key_waits_for_a_signature(world: Rings, tmp_path: Path) -> None:
    (tmp_path / "keys" / "releases.pem").rename(tmp_path / "releases.pem")
    found = world.set("2")
    assert found.state == "signing"
    assert "edgeloop release sign rater" in found.reason
    assert world.runs() == ["1", "1"]
    (tmp_path / "releases.pem").rename(tmp_path / "keys" / "releases.pem")
    assert world.reconcile().started


@pytest.mark.parametrize("how", ["rejected", "moved", "deleted"])
def test_nobody_is_asked_to_sign_what_is_promoted_no_more(world: Rings, tmp_path: Path, how: str) -> None:
    world.out("3")
    key = tmp_path / "keys" / "releases.pem"
    key.rename(tmp_path / "releases.pem")
    world.set("2")
    assert [one.release for one in world.channel.pending("rater")] == [manifest("2").digest]
    match how:
        case "rejected":
            reject(world.parts, world.service, "alice", "no")
        case "moved":
            world.set("1")
        case "deleted":
            world.set(None)
    assert world.channel.pending("rater") == []


def test_a_place_that_is_missing_is_said_and_tried_again(world: Rings) -> None:
    lacking = ["no fleet says where target kubeedge is"]

    def check(_service: Service, _release: str) -> None:
        if lacking:
            raise BadInput(lacking[0])

    world.parts = replace(world.parts, rollouts=RingRollouts(world.fleet, world.channel, check))
    with pytest.raises(BadInput, match="no fleet says"):
        world.set("2")
    found = world.promotions.current("rater")
    assert found is not None
    assert (found.state, found.reason) == ("signing", lacking[0])
    lacking.clear()
    world.out("2")
