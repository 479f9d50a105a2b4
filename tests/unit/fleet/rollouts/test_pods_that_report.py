"""A ring on a cluster is judged by what its pods count, where they report; how many run is the cluster's to say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.edge.reports import alive_message
from edgeloop.fleet.rollouts.roster import Roster
from tests.unit.fleet.rollouts.clusters import ClusterWorld
from tests.unit.fleet.rollouts.test_kserve_rollout import Sites
from tests.unit.fleet.rollouts.test_kubeedge_rollout import Edge
from tests.unit.fleet.rollouts.world import LAST, NAMES, NEW, NEXT, OLD, Node

RELEASES = {name: release for release, name in NAMES.items()}
#: A hundred answers, none failed, all sure.
GOOD: dict[str, Any] = {"release_answered": 100, "confidence_histogram": [0] * 9 + [100]}
FAILING: dict[str, Any] = {"release_answered": 50, "release_failed": 50}


class Telling:
    """Pods of a world that report what they count under each release."""

    def __init__(self, world: ClusterWorld, rings: dict[str, int], **counts: dict[str, Any]) -> None:
        self.world = world
        self.rings = rings
        self.counts = counts
        self._control = world._controllers
        world._controllers = self.control

    def control(self) -> None:
        self._control()
        runs = self.world.runs()  # type: ignore[attr-defined]  # worlds of clusters have it
        for (name, ring), run in zip(self.rings.items(), runs, strict=True):
            self.say(name, ring, run)

    def say(self, name: str, ring: int, run: str) -> None:
        self.world.say(Node(name, ring, serving=RELEASES[run], extra=self.counts[run]))


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    made = Edge(tmp_path)
    yield made
    made.close()


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Sites]:
    made = Sites(tmp_path)
    yield made
    made.close()


def reach_ring_0(edge: Edge) -> None:
    """Roll NEW out as far as the pods of the first ring."""
    edge.tick()
    assert edge.start(NEW)
    while edge.runs()[0] == "old":
        edge.tick()


def limits(world: ClusterWorld, **more: Any) -> None:
    rollout = world.service.rollout
    thresholds = rollout.thresholds.model_copy(update=more)
    world.service = world.service.model_copy(update={"rollout": rollout.model_copy(update={"thresholds": thresholds})})


def test_pods_that_are_ready_and_fail_are_taken_back_before_the_next_ring(edge: Edge) -> None:
    Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=FAILING)
    edge.tick()
    assert edge.start(NEW)
    assert edge.run().state == "reverted"
    status = edge.status()
    assert [ring.state for ring in status.rings] == ["failed", "waiting"]
    assert "50.0% of 100 requests failed" in status.reason
    assert edge.runs() == ["old", "old"]


def test_pods_that_answer_as_before_go_on(edge: Edge) -> None:
    limits(edge, max_confidence_shift=0.1)
    Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=GOOD)
    edge.tick()
    assert edge.start(NEW)
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])


def test_confidences_are_compared_with_those_of_the_pod_before(edge: Edge) -> None:
    limits(edge, max_confidence_shift=0.1)
    unsure = {"release_answered": 100, "confidence_histogram": [100] + [0] * 9}
    Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=unsure)
    edge.tick()
    assert edge.start(NEW)
    status = edge.run()
    assert (status.state, edge.runs()) == ("reverted", ["old", "old"])
    assert "of the confidences moved" in status.reason


def test_an_old_pod_that_speaks_while_it_is_replaced_does_not_blur_what_is_compared(edge: Edge) -> None:
    limits(edge, max_confidence_shift=0.1)
    unsure = {"release_answered": 100, "confidence_histogram": [100] + [0] * 9}
    told = Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=unsure)

    def both() -> None:
        told._control()
        for (name, ring), run in zip(told.rings.items(), edge.runs(), strict=True):
            for speaks in ("old", run, "old", run):
                told.say(name, ring, speaks)
                edge.pass_time(1)

    edge._controllers = both
    edge.tick()
    assert edge.start(NEW)
    assert (edge.run().state, edge.runs()) == ("reverted", ["old", "old"])


def test_silent_pods_are_judged_by_being_ready(edge: Edge) -> None:
    limits(edge, max_confidence_shift=0.1)
    assert edge.start(NEW)
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])


def test_a_pod_that_fell_silent_is_no_failure_while_the_cluster_says_that_it_runs(edge: Edge) -> None:
    told = Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=GOOD)
    reach_ring_0(edge)
    edge._controllers = told._control
    edge.pass_time(3600)
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])


def test_a_site_speaks_for_its_predictor(sites: Sites) -> None:
    Telling(sites, {"lab": 0, "north": 1, "south": 1}, old=GOOD, new=FAILING)
    sites.tick()
    assert sites.start(NEW)
    status = sites.run()
    assert (status.state, status.rings[1].state) == ("reverted", "waiting"), status
    assert "requests failed" in status.reason
    assert sites.runs() == ["old"] * 3


def test_a_release_after_one_that_was_taken_back_is_judged_by_its_own_counts(edge: Edge) -> None:
    Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=FAILING, next=GOOD)
    edge.tick()
    assert edge.start(NEW)
    assert edge.run().state == "reverted"
    assert edge.start(NEXT)
    assert (edge.run().state, edge.runs()) == ("done", ["next", "next"])


def test_a_goodbye_of_an_agent_of_the_same_name_changes_no_verdict_and_can_be_taken_back(edge: Edge) -> None:
    told = Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=GOOD, next=FAILING)
    goodbye = alive_message("edge-0", 0, False)
    edge.broker.publish(goodbye.topic, goodbye.payload, retain=True)
    edge.tick()
    assert edge.start(NEW)
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])
    assert edge.start(NEXT)
    assert edge.run().state == "reverted"
    online = {row.node: row.online for row in Roster(edge.fleet.database).rows()}
    assert online == {"edge-0": False, "edge-1": True}
    edge.broker.publish(goodbye.topic, b'{"online": true}', retain=True)
    told.counts["last"] = GOOD
    assert edge.start(LAST)
    edge.run()
    assert all(row.online for row in Roster(edge.fleet.database).rows())


def test_a_node_that_goes_to_the_next_ring_half_way_fails_neither(edge: Edge) -> None:
    Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=GOOD)
    reach_ring_0(edge)
    edge.say(Node("edge-0", 1, serving=OLD, extra=GOOD))
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])


def test_what_was_counted_before_does_not_count_when_it_is_tried_again(edge: Edge) -> None:
    told = Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=FAILING)
    edge.tick()
    assert edge.start(NEW)
    assert edge.run().state == "reverted"
    told.counts["new"] = GOOD
    assert edge.start(NEW, again=True)
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])


def test_an_old_pod_that_had_the_last_word_and_fell_silent_holds_nothing_up(edge: Edge) -> None:
    rollout = edge.service.rollout.model_copy(update={"soak_seconds": 200.0})
    edge.service = edge.service.model_copy(update={"rollout": rollout})
    told = Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=GOOD)
    reach_ring_0(edge)
    edge._controllers = told._control
    edge.tick()
    told.say("edge-0", 0, "old")
    edge.tick()
    assert edge.status().rings[0].state == "soaking"
    assert (edge.run(100).state, edge.runs()) == ("done", ["new", "new"])
