"""Moves through everything that is real but the models: decisions, signed channel, agents, reports, roster."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from edgeloop.clients.broker import MemoryHub
from edgeloop.edge.releases import loading
from edgeloop.fleet.rollout import RolloutStatus, describe_rollout, revert, start, tick
from edgeloop.fleet.rollouts.moves import held, move_node
from edgeloop.samples.records import Report, now
from edgeloop.samples.releases import Release
from edgeloop.samples.topics import report_topic
from edgeloop.store import FleetStore
from tests.unit.edge.batches import Ring, RingNode
from tests.unit.edge.fakes import SERVICE, load_fake, publish
from tests.unit.samples.make import regressor

HOMES = {"a": 0, "b": 0, "c": 1, "d": 2}


class Fleet:
    """Three rings of agents under one rollout machine with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.site = Ring(folder)
        self.store = FleetStore("sqlite://")
        self.broker = MemoryHub().connect("test")
        self.service = regressor(name=SERVICE, rings=[0, 1, 2], rollout={"soak_seconds": 50, "patience_seconds": 900})
        self.nodes = {name: RingNode(self.site, name, home=ring) for name, ring in HOMES.items()}
        self.at = now()

    def close(self) -> None:
        self.broker.close()
        self.store.close()

    def release(self, version: str) -> Release:
        made = publish(self.site.store, version)
        self.site.approve(made)
        self.store.add_release(SERVICE, version, made.digest)
        return made

    def begin(self, release: Release) -> None:
        assert start(self.store, self.site.publisher, self.service, release.digest, "why", "ann", at=self.at)

    def step(self) -> RolloutStatus:
        """A tick, and a look of every node, which reports."""
        self.at += timedelta(seconds=20)
        tick(self.store, self.site.publisher, self.broker, lambda _: self.service, self.at)
        for node in self.nodes.values():
            node.poll()
            said = Report(
                node=node.name, ring=node.place.ring, service=SERVICE, at=self.at, serving=node.serving,
                staged=node.staged, refused=node.given_up.release if node.given_up else None,
            )  # fmt: skip
            self.broker.publish(report_topic(node.name, SERVICE), said.model_dump_json().encode(), retain=True)
        return describe_rollout(self.store, SERVICE)

    def until(self, state: str, ring: int | None = None) -> None:
        for _ in range(60):
            found = self.step()
            if (found.state if ring is None else found.rings[ring].state) == state:
                return
        raise AssertionError(describe_rollout(self.store, SERVICE))

    def put(self, node: str, ring: int | None) -> str | None:
        services = {SERVICE: self.service}
        return move_node(self.store, self.site.publisher, services, node, ring, "ann", "", self.at)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setattr(loading, "load_model", load_fake)
    found = Fleet(tmp_path)
    yield found
    found.close()


def test_agents_move_join_and_keep_until_all_run_the_release(fleet: Fleet) -> None:
    old, new = fleet.release("1"), fleet.release("2")
    fleet.begin(old)
    fleet.until("done")
    fleet.begin(new)
    fleet.until("passed", ring=0)
    assert fleet.put("b", 2) is not None  # it has the release, ring 2 has not
    assert fleet.put("c", 0) is None  # joins a ring that has it
    fleet.step()
    nodes = fleet.nodes
    assert (nodes["b"].place.ring, nodes["b"].serving) == (0, new.digest)
    assert (nodes["c"].place.ring, nodes["c"].serving) == (0, new.digest)
    assert nodes["d"].serving == old.digest
    never_back = []
    while fleet.step().state != "done":
        never_back.append(nodes["b"].serving)
    assert set(never_back) <= {new.digest}
    fleet.step()
    assert [n.place.ring for n in nodes.values()] == [0, 2, 0, 2] and held(fleet.store) == []
    assert {n.serving for n in nodes.values()} == {new.digest}
    assert [row["event"] for row in fleet.store.history(SERVICE)].count("ring") == 2


def test_a_revert_reaches_every_agent_that_moved(fleet: Fleet) -> None:
    old, new = fleet.release("1"), fleet.release("2")
    fleet.begin(old)
    fleet.until("done")
    fleet.begin(new)
    fleet.until("passed", ring=0)
    fleet.put("b", 2)
    fleet.put("d", 0)
    fleet.step()
    assert fleet.nodes["d"].serving == new.digest
    fleet.nodes["d"].boot()
    revert(fleet.store, SERVICE, "ann", "worse")
    fleet.until("reverted")
    fleet.step()
    assert {n.serving for n in fleet.nodes.values()} == {old.digest}
    assert {n.name: n.place.ring for n in fleet.nodes.values()} == {"a": 0, "b": 2, "c": 1, "d": 0}
