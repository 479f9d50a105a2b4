"""Everything there is to say of a fleet at this moment, gathered once for the page and for ``edgeloop status``.

A part that is away leaves its section empty and named in ``unknown``; the others are shown all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeVar

from edgeloop.bootstrap import App
from edgeloop.errors import EdgeloopError, Unavailable
from edgeloop.fleet.rollouts.status import describe_rollout
from edgeloop.settings import Settings
from edgeloop.stack.status import stack_status
from edgeloop.web.approvals import waiting
from edgeloop.web.nodes import nodes
from edgeloop.web.rollouts import ledger, rollouts
from edgeloop.web.troubles import part_trouble

T = TypeVar("T")


def overview(settings: Settings) -> dict[str, Any]:
    """Look once at the stack of these settings; see :func:`look_at`."""
    return look_at(App(settings))


def look_at(app: App) -> dict[str, Any]:
    """Everything there is to say of a stack, JSON-able.

    Returns:
        ``home``; ``stack`` (see :func:`edgeloop.stack.status.stack_status`); ``flows``; ``champions`` by service;
        ``promotions``: those that have not begun their rollout; ``rollouts``; ``ledger``; ``nodes``, ``crowd`` and
        ``left_out`` (see :func:`edgeloop.web.nodes.nodes`); ``problems``: what did not answer, in sentences;
        ``unknown``: the sections left empty by that.
    """
    stack = stack_status(app.settings)
    silent = _silent(app.settings, stack)
    problems: list[str] = []
    unknown: list[str] = []

    def ask(section: str, part: str, what: Callable[[], T], otherwise: T) -> T:
        try:
            if part in silent:
                # It would be waited for much longer than its health check was.
                raise Unavailable(silent[part])
            return what()
        except EdgeloopError as error:
            problems.append(str(error))
            unknown.append(section)
            return otherwise

    no_rows: list[dict[str, Any]] = []
    no_champions: dict[str, dict[str, Any] | None] = {}
    return {
        "home": str(app.settings.home.absolute()),
        "stack": stack,
        "flows": ask("flows", "prefect", lambda: [asdict(d) for d in app.orchestrator.deployments()], no_rows),
        "champions": ask("champions", "mlflow", lambda: {s: _champion(app, s) for s in app.services()}, no_champions),
        "promotions": ask("promotions", "database", lambda: waiting(app.fleet, app.store, app.services()), no_rows),
        "rollouts": ask("rollouts", "database", lambda: rollouts(app.fleet, app.services()), no_rows),
        "ledger": ask("ledger", "database", lambda: ledger(app.fleet, app.services()), no_rows),
        **ask("nodes", "broker", lambda: nodes(app), {"nodes": [], "crowd": [], "left_out": {}}),
        "problems": problems,
        "unknown": unknown,
    }


class Lookout:
    """Looks again and again with the same clients, until the settings change because another stack was started."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._app: App | None = None

    def __call__(self) -> dict[str, Any]:
        """Look once; raises what reading the settings raises."""
        settings = self._settings()
        if self._app is None or self._app.settings != settings:
            self._app = App(settings)
        return look_at(self._app)


def _silent(settings: Settings, stack: dict[str, Any]) -> dict[str, str]:
    """What is wrong with the parts that do not answer, as far as the settings name the very parts of the stack."""
    return {
        part["name"]: part_trouble(part)
        for part in stack["parts"]
        if not part["healthy"] and stack["addresses"].get(part["name"]) == getattr(settings, part["name"], None)
    }


def _champion(app: App, service: str) -> dict[str, Any] | None:
    version = app.registry.champion(service)
    if version is None:
        return None
    rollout = describe_rollout(app.fleet, service) if app.fleet.last_rollout(service) else None
    drifted = app.fleet.events(service, "drift", version.version)
    return {
        "version": version.version,
        "release": app.fleet.release_of(service, version.version),
        "rollout": rollout.state if rollout else None,
        # Not always the champion: the alias leaves a version that was taken back.
        "rolled": app.fleet.version_of(service, rollout.release) if rollout else None,
        "reason": rollout.reason if rollout else None,
        "drift": drifted[0]["reason"] if drifted else None,
    }
