"""A rollout over sites with KServe, of which one is away, or has an object that is not ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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
        found = [kept(site, INFERENCE_SERVICES)[0] for site in self.sites.values()]
        return running([one["spec"]["predictor"]["containers"][0]["image"] for one in found])


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


def test_of_a_ring_no_site_is_changed_where_one_would_refuse(world: Sites) -> None:
    name = isvc_name("rater")
    image = {"predictor": {"containers": [{"name": "kserve-container", "image": "theirs"}]}}
    meta = {"name": name, "namespace": "edgeloop"}
    kind = {"apiVersion": INFERENCE_SERVICES.api_version, "kind": INFERENCE_SERVICES.kind}
    world.sites["south"].edit(INFERENCE_SERVICES, {**kind, "metadata": meta, "spec": image}, "argocd")
    world._controllers = lambda: None
    assert world.start(NEW)
    for _ in range(3):
        world.tick()
        world._control()
    status = world.run()
    assert status.state == "holding", status
    assert "is managed by 'argocd'" in status.reason
    assert kept(world.sites["north"], INFERENCE_SERVICES)[0]["spec"]["predictor"]["containers"][0]["image"].endswith(
        running_digest(OLD)
    )


def running_digest(release: str) -> str:
    from tests.unit.fleet.rollouts.clusters import pushed

    return pushed(release)


def test_a_release_that_does_not_come_up_is_taken_back_at_every_site(world: Sites) -> None:
    def stuck() -> None:
        for site in world.sites.values():
            site.deploy()
            is_new = running([kept(site, INFERENCE_SERVICES)[0]["spec"]["predictor"]["containers"][0]["image"]])
            bad = is_new == ["new"] and site.name != "lab"
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
