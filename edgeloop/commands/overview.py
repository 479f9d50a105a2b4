"""What ``edgeloop status`` shows: parts, flows, champions and what each node serves. Parts that are away are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from edgeloop.bootstrap import App
from edgeloop.commands.output import table
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.reports import collect_reports, status_of
from edgeloop.settings import Settings
from edgeloop.stack.status import stack_status

T = TypeVar("T")


def overview(settings: Settings) -> dict[str, Any]:
    """Everything there is to say of a stack, JSON-able; ``problems`` names the parts that did not answer."""
    app = App(settings)
    problems: list[str] = []

    def ask(what: Callable[[], T], otherwise: T) -> T:
        try:
            return what()
        except EdgeloopError as error:
            problems.append(str(error))
            return otherwise

    services = app.services()
    no_rows: list[dict[str, Any]] = []
    no_champions: dict[str, dict[str, Any] | None] = {}
    return {
        "home": str(settings.home.absolute()),
        "stack": stack_status(settings),
        "flows": ask(lambda: [asdict(d) for d in app.orchestrator.deployments()], no_rows),
        "champions": ask(lambda: {name: _champion(app, name) for name in services}, no_champions),
        "nodes": ask(lambda: _nodes(app), no_rows),
        "problems": problems,
    }


def _champion(app: App, service: str) -> dict[str, Any] | None:
    version = app.registry.champion(service)
    if version is None:
        return None
    rollout = app.fleet.last_rollout(service)
    return {
        "version": version.version,
        "release": app.fleet.release_of(service, version.version),
        "rollout": rollout["state"] if rollout else None,
        "reason": rollout["reason"] if rollout else None,
    }


def _nodes(app: App) -> list[dict[str, Any]]:
    with app.broker() as broker:
        return [status_of(r).model_dump() for r in collect_reports(broker)]


def overview_text(found: dict[str, Any]) -> str:
    """The overview for a terminal."""
    parts = [
        [p["name"], "up" if p["alive"] else "down", "" if p["healthy"] else "not healthy", p["address"] or ""]
        for p in found["stack"]["parts"]
    ]
    flows = [
        [f["name"], f["schedule"], "paused" if f["paused"] else "on", f["last_state"] or ""] for f in found["flows"]
    ]
    champions = [
        [name, c["version"], _short(c["release"]), c["rollout"] or ""] if c else [name, "none", "", ""]
        for name, c in found["champions"].items()
    ]
    nodes = [
        [
            n["node"],
            str(n["ring"]),
            n["service"],
            _short(n["serving"]),
            _short(n["wanted"]),
            "" if n["online"] else "offline",
        ]
        for n in found["nodes"]
    ]
    blocks = [
        table(parts, ["part", "", "", "address"])
        if parts
        else "no stack runs on this home: start one with  edgeloop up",
        table(flows, ["flow", "schedule", "", "last run"]) if flows else "",
        table(champions, ["service", "champion", "release", "rollout"]) if champions else "",
        table(nodes, ["node", "ring", "service", "serving", "wanted", ""]) if nodes else "",
        "\n".join(found["problems"]),
    ]
    return "\n\n".join(b for b in blocks if b)


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"
