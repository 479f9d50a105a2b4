"""A rollout over an edge cluster, from its start to its end: DaemonSets, their pods, and whoever else changes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.clients.cluster import DAEMON_SETS, NODES
from edgeloop.fleet.rollout import revert
from edgeloop.fleet.rollouts.effects import Action
from edgeloop.fleet.targets.protocol import Outcome
from tests.unit.fleet.rollouts.clusters import ClusterWorld, pushed, running
from tests.unit.fleet.rollouts.world import NEW, OLD
from tests.unit.fleet.targets.edge import EdgeCluster, kept

FLEET = """
version: 2
name: plant
rings: {0: {labels: {line: press}}}
otherwise: 1
targets:
  kubeedge: {context: west, options: {prepull_at_once: 2}}
"""


class Edge(ClusterWorld):
    """Four nodes in two rings on OLD, the first known by a label of its own; pods of what is ``broken`` crash."""

    def __init__(self, folder: Path) -> None:
        self.cluster = EdgeCluster()
        for name in ("edge-0", "edge-1"):
            meta = {"name": name, "labels": {"line": "press", "edgeloop/ring": "7"}}
            self.cluster.edit(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta}, "somebody")
        self.broken: list[str] = []
        super().__init__(folder, FLEET, {"west": self.cluster}, self._control)
        self.delivered(OLD)

    def _control(self) -> None:
        self.cluster.pull()
        self.cluster.run(self.broken)

    def runs(self) -> list[str]:
        """By ring, the release of the DaemonSet."""
        found = kept(self.cluster, DAEMON_SETS)
        return running([one["spec"]["template"]["spec"]["containers"][0]["image"] for one in found])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Edge]:
    made = Edge(tmp_path)
    yield made
    made.close()


def test_a_good_release_is_pulled_then_run_ring_by_ring(world: Edge) -> None:
    seen = []
    assert world.start(NEW)
    for _ in range(12):
        world.tick()
        seen.append((world.status().rings[0].state, tuple(world.runs())))
    status = world.status()
    assert status.state == "done", status
    assert [(r.state, r.nodes, r.switched) for r in status.rings] == [("passed", 2, 2)] * 2
    assert ("staging", ("old", "old")) in seen, "the images come first"
    assert [runs for _, runs in seen if runs == ("new", "old")], "ring 1 waits for ring 0"
    assert seen[-1][1] == ("new", "new")
    assert not [name for kind, _, name in world.cluster.objects() if kind == "ImagePrePullJob"]


def test_pods_that_crash_are_taken_back_before_the_next_ring(world: Edge) -> None:
    world.broken.append(pushed(NEW))
    assert world.start(NEW)
    reached = set()
    for _ in range(12):
        world.tick()
        reached.add(tuple(world.runs()))
    status = world.status()
    assert (status.state, status.rings[0].state) == ("reverted", "failed"), status
    assert "CrashLoopBackOff" in status.reason
    assert reached == {("old", "old"), ("new", "old")}
    assert world.runs() == ["old", "old"]


def test_a_ring_is_back_when_its_pods_are(world: Edge) -> None:
    assert world.start(NEW)
    while world.runs()[0] == "old":
        world.tick()
    revert(world.fleet, world.service.name, "ann", "because")
    world._controllers = lambda: None
    world.tick()
    world.tick()
    assert (world.status().state, world.runs()) == ("reverting", ["old", "old"])
    assert "ring 0 (0 of 2 are back)" in world.status().reason
    world._controllers = world._control
    assert world.run().state == "reverted"


def test_a_field_that_somebody_else_has_holds_it_until_he_lets_go(world: Edge) -> None:
    name = kept(world.cluster, DAEMON_SETS)[0]["metadata"]["name"]
    image = {"containers": [{"name": "predictor", "image": "theirs"}]}
    meta = {"name": name, "namespace": "edgeloop"}
    theirs = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta, "spec": {"template": {"spec": image}}}
    world.cluster.edit(DAEMON_SETS, theirs, "kubectl-edit")
    assert world.start(NEW)
    status = world.run()
    assert (status.state, status.waits) == ("holding", "person"), status
    assert "is managed by 'kubectl-edit'" in status.reason
    assert "image" in status.reason
    assert kept(world.cluster, DAEMON_SETS)[0]["spec"]["template"]["spec"]["containers"][0]["image"] == "theirs"
    world.cluster.delete(DAEMON_SETS, name, "edgeloop")
    for _ in range(12):
        world.tick()
    assert (world.status().state, world.runs()) == ("done", ["new", "new"])


def test_an_api_server_that_is_away_is_waited_for(world: Edge) -> None:
    assert world.start(NEW)
    world.cluster.away = True
    world._controllers = lambda: None
    for _ in range(3):
        world.tick()
    assert world.status().state == "moving"
    world.cluster.away, world._controllers = False, world._control
    assert world.run().state == "done"


def test_an_image_that_was_not_pushed_holds_it(world: Edge) -> None:
    world.images.of = lambda _release: {}  # type: ignore[assignment]
    world.start(NEW)
    status = world.run()
    assert (status.state, world.runs()) == ("holding", ["old", "old"])
    assert "edgeloop release push" in status.reason


def test_what_is_approved_no_more_is_not_brought_further(world: Edge) -> None:
    assert world.start(NEW)
    while world.runs()[0] == "old":
        world.tick()
    world.channel.approved.remove(NEW)
    status = world.run()
    assert (status.state, world.runs()) == ("holding", ["new", "old"])
    assert "is not approved" in status.reason
    revert(world.fleet, world.service.name, "ann", "because")
    assert (world.run().state, world.runs()) == ("reverted", ["old", "old"])


def test_what_is_done_is_named_by_ring_and_grows_with_rings_alone(world: Edge) -> None:
    names: list[str] = []

    def perform(actions: list[Action]) -> list[Outcome]:
        names.extend(action.name for action in actions)
        return [action.call() for action in actions]

    world.perform = perform  # type: ignore[assignment]
    for number in range(100):
        world.cluster.node(f"more-{number}", ring=1)
    world.start(NEW)
    assert world.run().state == "done"
    assert set(names) == {"rater ring 0 on kubeedge", "rater ring 1 on kubeedge"}
