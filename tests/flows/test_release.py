"""The flow `release` sees every service through, and the alias leaves what the fleet took back in the same run."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import pytest

import flows.loop
import flows.release
import tasks.release
from edgeloop.clients.registry import ForeignVersion
from edgeloop.errors import EdgeloopError
from edgeloop.learning.rounds import RoundRecord
from edgeloop.samples.records import now
from flows.retrain import Stopwatch
from tasks.release import Released, release_service
from tests.unit.promotion.world import World, release_of


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """One service, behind tasks that run as plain functions; its rollouts end as ``ends`` says."""
    made = World()
    app = SimpleNamespace(promotion=made.parts, service=lambda _: made.service, services=lambda: ["broken", "rater"])
    monkeypatch.setattr(tasks.release, "open_app", lambda: app)
    monkeypatch.setattr(flows.release, "open_app", lambda: app)
    monkeypatch.setattr(flows.release, "get_run_logger", lambda: logging.getLogger("test"))
    return made


def ending(world: World, state: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let rollouts end in ``state`` when a flow stays with them; who stayed with what."""
    seen: list[str] = []

    def finish(service: str, _: float) -> SimpleNamespace:
        seen.append(service)
        if world.rollouts.state() == "moving":
            world.rollouts.end(state)
        return SimpleNamespace(state=world.rollouts.state())

    for module in (flows.release, flows.loop):
        monkeypatch.setattr(module, "finish_rollout", finish)
        monkeypatch.setattr(module, "release_service", reconciled)
    return seen


def reconciled(service: str) -> Released | None:
    if service == "broken":
        raise ForeignVersion("version 7 of broken has no tag")
    return release_service.fn(service)


def test_without_a_champion_there_is_nothing(world: World) -> None:
    assert release_service.fn("rater") is None
    world.set("1")
    world.set(None)
    assert release_service.fn("rater") is None, "a withdrawn version is no champion"


def test_a_champion_is_released(world: World) -> None:
    world.registry.set_champion("rater", "1")
    found = release_service.fn("rater")
    assert found is not None
    assert (found.version, found.release, found.state, found.started) == ("1", release_of("1"), "released", True)
    again = release_service.fn("rater")
    assert again is not None
    assert (again.state, again.started) == ("released", False)


def test_one_service_that_fails_keeps_no_other_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = ending(world, "done", monkeypatch)
    world.registry.set_champion("rater", "1")
    with pytest.raises(EdgeloopError, match="version 7 of broken"):
        asyncio.run(flows.release.release.fn(None))
    assert seen == ["rater"]
    assert world.rollouts.runs() == release_of("1")


def test_the_alias_leaves_what_was_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.out("1")
    ending(world, "reverted", monkeypatch)
    world.registry.set_champion("rater", "2")
    (found,) = asyncio.run(flows.release.release.fn("rater"))
    assert (found.version, found.started) == ("2", True)
    assert world.champion() == "1"


def deliver() -> RoundRecord:
    record = RoundRecord(id="run", service="rater", reason="test", at=now(), seconds={})
    return flows.loop.deliver(record, Stopwatch(), 1)


def test_a_round_ends_with_its_rollout(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(world, "done", monkeypatch)
    world.registry.set_champion("rater", "1")
    done = deliver()
    assert (done.champion, done.release, done.rollout) == ("1", release_of("1"), "done")
    assert set(done.seconds) == {"release", "rollout"}


def test_a_round_starts_no_other_from_what_was_taken_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.out("1")
    ending(world, "reverted", monkeypatch)
    world.registry.set_champion("rater", "2")
    assert deliver().rollout == "reverted"
    assert world.champion() == "1"


def test_a_round_does_not_wait_for_a_person(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = ending(world, "done", monkeypatch)
    world.service = World(approvals={"second": True}).service
    world.registry.set_champion("rater", "1")
    done = deliver()
    assert (done.champion, done.rollout, seen) == ("1", "waiting", [])
