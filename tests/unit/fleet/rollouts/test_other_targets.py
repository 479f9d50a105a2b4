"""Rings of a cluster go the same way: staged, switched, observed and taken back by ring, never by node."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgeloop.fleet.rollout import tick
from edgeloop.fleet.rollouts.effects import Action, in_turn
from edgeloop.fleet.targets.protocol import Diff, Observed, Outcome, Wave
from tests.unit.fleet.rollouts.world import NAMES, NEW, OLD, World
from tests.unit.samples.make import regressor


class Cluster:
    """A target whose rings are ready a look after they were switched, except for a release that is broken."""

    name = "kserve"

    def __init__(self) -> None:
        self.runs: dict[int, str] = {}
        self.broken: set[str] = set()
        self.calls: list[str] = []

    def plan(self, wave: Wave) -> Diff:
        return Diff()

    def stage(self, wave: Wave) -> Outcome:
        return self._said("stage", wave)

    def switch(self, wave: Wave) -> Outcome:
        release = wave.next.release if wave.next else wave.release
        assert release is not None
        self.runs[wave.ring] = release.digest
        return self._said("switch", wave)

    def revert(self, wave: Wave) -> Outcome:
        self.switch(wave)
        self.calls.pop()
        return self._said("revert", wave)

    def observe(self, wave: Wave) -> Observed | None:
        asked = wave.next.release if wave.next else wave.release
        assert asked is not None
        ready = self.runs.get(wave.ring) == asked.digest
        bad = ready and asked.digest in self.broken
        return Observed(3, 3, 0 if bad else 3 * ready, 3 * bad, 0, "ring: it crashes" if bad else "")

    def _said(self, verb: str, wave: Wave) -> Outcome:
        release = wave.next.release if wave.next else wave.release
        assert release is not None
        self.calls.append(f"{verb} {wave.ring} {NAMES[release.digest]}")
        return Outcome("done", changed=1)


@pytest.mark.parametrize(("is_broken", "ends"), [(False, "done"), (True, "reverted")])
def test_rings_of_a_cluster_go_the_same_way(is_broken: bool, ends: str) -> None:
    cluster, asked = Cluster(), []
    strategy = {"target": "kserve", "rings": {1: {"windows": [{"from": "00:00", "to": "00:00", "zone": "UTC"}]}}}
    world = World(regressor(rings=[0, 1], rollout=strategy), {})

    def perform(actions: Sequence[Action]) -> Sequence[Outcome]:
        asked.append(len(actions))
        return in_turn(actions)

    def to_end() -> str:
        for _ in range(20):
            world.pass_time(1)
            tick(
                world.fleet, world.rings, world.broker, lambda _: world.service, world.at,
                targets=lambda _: cluster, perform=perform,
            )  # fmt: skip
            if world.status().has_ended:
                return world.status().state
        raise AssertionError(world.status())

    world.start(OLD)
    assert to_end() == "done"
    cluster.broken = {NEW} if is_broken else set()
    cluster.calls.clear()
    world.start(NEW)
    assert to_end() == ends
    assert set(cluster.runs.values()) == {OLD if is_broken else NEW}
    assert ("stage 1 new" in cluster.calls) is not is_broken
    assert ("revert 0 old" in cluster.calls) is is_broken
    assert max(asked) == 2
    world.close()


def test_a_target_that_cannot_be_reached_holds_the_rollout() -> None:
    world = World(regressor(rings=[0], rollout={"target": "kserve"}), {})
    world.start(NEW)
    for _ in range(3):
        world.tick()
    assert (world.status().state, world.status().waits) == ("holding", "person")
    assert "target 'kserve' cannot be reached" in world.status().reason
    world.close()
