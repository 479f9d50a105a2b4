"""Counts of pods that are gone, or that have the last word and go, blame no good release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fleet.rollouts.test_kubeedge_rollout import Edge
from tests.unit.fleet.rollouts.test_pods_that_report import FAILING, GOOD, Telling, reach_ring_0
from tests.unit.fleet.rollouts.world import NEW, Node

#: Half of what clients ask is no input, under any release.
HALF: dict[str, Any] = FAILING


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    made = Edge(tmp_path)
    yield made
    made.close()


def test_a_tick_that_hears_the_old_pod_last_compares_all_the_same(edge: Edge) -> None:
    told = Telling(edge, {"edge-0": 0, "edge-1": 1}, old=HALF, new=HALF)
    reach_ring_0(edge)
    edge._controllers = told._control
    edge.tick()
    told.say("edge-0", 0, "old")
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])


def test_a_node_that_went_away_with_a_release_does_not_fail_it_when_it_is_tried_again(edge: Edge) -> None:
    told = Telling(edge, {"edge-0": 0, "edge-1": 1}, old=GOOD, new=FAILING)
    reach_ring_0(edge)
    edge.say(Node("away", 0, serving=NEW, extra=FAILING))
    assert edge.run().state == "reverted"
    told.counts["new"] = GOOD
    assert edge.start(NEW, again=True)
    assert (edge.run().state, edge.runs()) == ("done", ["new", "new"])
