"""An overview says what it could not find out, and does not wait for what is known to be silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.clients.broker import Broker, MemoryHub
from edgeloop.samples.records import Report, now
from edgeloop.samples.topics import report_topic
from edgeloop.settings import Settings
from edgeloop.web import overview as module
from edgeloop.web.overview import Lookout, _champion, look_at, overview
from edgeloop.web.troubles import troubles
from tests.servers.ports import free_ports
from tests.unit.fleet.rollouts.world import NEW, NEXT, World
from tests.unit.samples.make import regressor
from tests.unit.web.fleet import part


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    mlflow, prefect, broker = free_ports(3)
    return Settings(
        home=tmp_path,
        rooms=tmp_path,
        mlflow=f"http://127.0.0.1:{mlflow}",
        prefect=f"http://127.0.0.1:{prefect}/api",
        broker=f"mqtt://127.0.0.1:{broker}",
    )


def add_service(settings: Settings) -> None:
    (settings.home / "services").mkdir()
    (settings.home / "services" / "digits.yaml").touch()


def test_a_home_where_everything_is_away(settings: Settings) -> None:
    add_service(settings)
    found = overview(settings)
    assert found["unknown"] == ["flows", "champions", "nodes"]
    assert len(found["problems"]) == 3
    said = " ".join(troubles(found))
    assert all(str(address) in said for address in (settings.mlflow, settings.broker.removeprefix("mqtt://")))
    assert "start one with  edgeloop up" in said


def stack(settings: Settings, *parts: dict[str, Any]) -> dict[str, Any]:
    """The status of a stack that listens where the settings say."""
    addresses = {"mlflow": settings.mlflow, "prefect": settings.prefect, "broker": settings.broker}
    return {"home": "", "running": True, "supervisor": 1, "addresses": addresses, "parts": list(parts)}


class Reported(App):
    """Its broker has a word of one node."""

    @contextmanager
    def broker(self) -> Iterator[Broker]:
        broker = MemoryHub().connect("test")
        said = Report(node="edge-1", ring=0, service="digits", at=now(), last_error="no disk")
        broker.publish(report_topic("edge-1", "digits"), said.model_dump_json().encode(), retain=True)
        yield broker


def test_nodes_are_shown_with_their_last_error(settings: Settings) -> None:
    found = look_at(Reported(settings))
    assert [(n["node"], n["online"], n["last_error"]) for n in found["nodes"]] == [("edge-1", True, "no disk")]
    assert "nodes" not in found["unknown"]
    assert any("edge-1 (digits, ring 0) reports an error: no disk" in t for t in troubles(found))


class Championed(App):
    """Its registry knows version new."""

    @property
    def registry(self) -> Any:
        return SimpleNamespace(champion=lambda _service: SimpleNamespace(version="new"))


def test_a_rollout_that_was_dropped_before_its_turn_is_not_the_champions(settings: Settings) -> None:
    world = World(regressor(name="digits", rings=[0]), {"a": 0}, f"sqlite:///{settings.home / 'fleet.db'}")
    for release in (NEW, NEXT, NEW):
        world.start(release)
    app = Championed(settings)
    app.fleet = world.fleet
    found = _champion(app, "digits")
    assert found is not None
    assert (found["rollout"], found["rolled"], found["reason"]) == ("moving", "new", "why")
    world.fleet.close()


class Untouched(App):
    """Fails the test if anybody asks the registry."""

    @property
    def registry(self) -> Any:
        pytest.fail("a registry that does not answer was asked")


def test_what_is_silent_is_not_asked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    add_service(settings)
    dead = stack(settings, part("mlflow", settings.mlflow, "timed out"))
    monkeypatch.setattr(module, "stack_status", lambda _settings: dead)
    found = look_at(Untouched(settings))
    assert "champions" in found["unknown"]
    # Said once, though both the stack and the section know it.
    assert [t for t in troubles(found) if t.startswith("mlflow")] == ["mlflow does not work: timed out"]


def test_another_registry_than_the_stacks_is_asked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    add_service(settings)
    dead = stack(settings, part("mlflow", settings.mlflow, "timed out"))
    monkeypatch.setattr(module, "stack_status", lambda _settings: dead)
    elsewhere = settings.model_copy(update={"mlflow": f"http://127.0.0.1:{free_ports(1)[0]}"})
    assert any(elsewhere.mlflow in problem for problem in overview(elsewhere)["problems"])


def test_clients_are_kept_until_the_settings_change(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[App] = []

    def look_at(app: App) -> dict[str, Any]:
        seen.append(app)
        return {}

    monkeypatch.setattr(module, "look_at", look_at)
    current = settings
    look = Lookout(lambda: current)
    look()
    look()
    current = settings.model_copy(update={"mlflow": "http://127.0.0.1:1"})
    look()
    assert seen[0] is seen[1]
    assert seen[2] is not seen[1]
    assert seen[2].settings == current
