"""A rollout over sites with KServe, of which one is away, or has an object that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.fleet.rollout import revert
from edgeloop.fleet.rollouts.effects import Action
from edgeloop.fleet.targets.kserve_manifests import INFERENCE_SERVICES, isvc_name
from edgeloop.fleet.targets.protocol import Outcome
from tests.unit.fleet.rollouts.clusters import ClusterWorld, running
from tests.unit.fleet.rollouts.world import NEW, NEXT, OLD
from tests.unit.fleet.targets.edge import kept
from tests.unit.fleet.targets.sites import Site

FLEET = """
version: 2
name: plants
rings: {}
otherwise: 1
targets:
  kserve: {sites: {0: [lab], 1: [north, south]}}
"""
NAMES = ("lab", "north", "south")


def image_at(site: Site) -> str:
    found: str = kept(site, INFERENCE_SERVICES)[0]["spec"]["predictor"]["containers"][0]["image"]
    return found


class Sites(ClusterWorld):
    """Ring 0 is one site, ring 1 two; all on OLD."""

    def __init__(self, folder: Path) -> None:
        self.sites = {name: Site(name) for name in NAMES}
        super().__init__(folder, FLEET, self.sites, self._control)
        self.delivered(OLD)

    def _control(self) -> None:
        for site in self.sites.values():
            if not site.away:
                site.run()

    def runs(self) -> list[str]:
        """By site, the release of the InferenceService."""
        return running([image_at(site) for site in self.sites.values()])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Sites]:
    made = Sites(tmp_path)
    yield made
    made.close()


def test_a_site_that_is_away_stops_nobody_and_gets_it_when_it_is_back(world: Sites) -> None:
    world.sites["south"].away = True
    assert world.start(NEW)
    status = world.run()
    assert (status.state, world.runs()) == ("done", ["new", "new", "old"]), status
    assert (status.rings[1].nodes, status.rings[1].online, status.rings[1].switched) == (2, 1, 1)
    world.tick()
    assert world.runs()[2] == "old"
    world.sites["south"].away = False
    world.tick()
    assert world.runs() == ["new", "new", "new"]


def test_going_back_does_not_wait_for_a_site_that_is_away(world: Sites) -> None:
    assert world.start(NEW)
    while world.runs()[1] == "old":
        world.tick()
    world.sites["south"].away = True
    revert(world.fleet, world.service.name, "ann", "because")
    assert world.run().state == "reverted"
    assert world.runs()[:2] == ["old", "old"]
    world.sites["south"].away = False
    world.tick()
    assert world.runs()[2] == "old"


def test_of_a_ring_no_site_is_changed_where_one_would_refuse(world: Sites) -> None:
    name = isvc_name("rater")
    meta = {"name": name, "namespace": "edgeloop"}
    kind = {"apiVersion": INFERENCE_SERVICES.api_version, "kind": INFERENCE_SERVICES.kind}
    for image in ("theirs", image_at(world.sites["south"])):  # theirs now, though it is as it was
        spec = {"predictor": {"containers": [{"name": "kserve-container", "image": image}]}}
        world.sites["south"].edit(INFERENCE_SERVICES, {**kind, "metadata": meta, "spec": spec}, "argocd")
    assert world.start(NEW)
    status = world.run()
    assert (status.state, status.rings[0].state) == ("holding", "passed"), status
    assert "is managed by 'argocd'" in status.reason
    assert world.runs() == ["new", "old", "old"]


def test_a_release_that_does_not_come_up_is_taken_back_at_every_site(world: Sites) -> None:
    def stuck() -> None:
        for site in world.sites.values():
            site.deploy()
            bad = running([image_at(site)]) == ["new"] and site.name != "lab"
            site.pods(updated=1, available=0 if bad else 1, stuck=bad)
            site.look()

    world._controllers = stuck
    assert world.start(NEW)
    status = world.run()
    assert (status.state, world.runs()) == ("reverted", ["old"] * 3), status
    assert "ProgressDeadlineExceeded" in status.reason


def test_the_calls_are_by_site_and_can_be_done_at_once(world: Sites) -> None:
    names: list[str] = []

    def perform(actions: list[Action]) -> list[Outcome]:
        names.extend(action.name for action in actions)
        return [action.call() for action in reversed(actions)][::-1]

    world.perform = perform  # type: ignore[assignment]
    assert world.start(NEXT)
    assert world.run().state == "done"
    wanted = {f"rater ring {ring} on kserve at {site}" for ring, site in ((0, "lab"), (1, "north"), (1, "south"))}
    assert {name for name in names if not name.endswith(": check")} == wanted
