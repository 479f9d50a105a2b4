"""The orchestrator that is not there: plain functions stand in for deployments; shipped for tests."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop.clients.orchestrator_types import (
    FINAL,
    DeploymentInfo,
    OnState,
    OrchestratorUnavailable,
    RefusedParameters,
    RunState,
    RunUnfinished,
    TaskState,
    UnknownRun,
    unknown_deployment,
)

Body = Callable[..., Any]


@dataclass
class _FakeRun:
    name: str
    deployment: str
    state: str = "Pending"
    message: str = ""
    lines: list[str] = field(default_factory=list)


class FakeOrchestrator:
    """Orchestrator in memory: each deployment is a function that runs when its run is waited for.

    The function's return value, if a string or a list of strings, is what the run has logged.
    """

    def __init__(self, bodies: Mapping[str, Body]) -> None:
        """Take the function behind each ``flow/deployment``."""
        self._bodies = dict(bodies)
        self._runs: dict[str, _FakeRun] = {}
        self._parameters: dict[str, dict[str, Any]] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._paused = False
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        """What was emitted: event, resource, payload."""
        self.healthy = True
        """Set to False to have every call fail as if the server were away."""

    def check(self) -> None:
        """See :meth:`Orchestrator.check`."""
        if not self.healthy:
            raise OrchestratorUnavailable("Prefect (fake) does not answer: is the stack up?")

    def deployments(self) -> list[DeploymentInfo]:
        """See :meth:`Orchestrator.deployments`."""
        self.check()
        return [self._info(name) for name in sorted(self._bodies)]

    def run(
        self,
        deployment: str,
        parameters: Mapping[str, Any],
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """See :meth:`Orchestrator.run`."""
        self.check()
        if deployment not in self._bodies:
            raise unknown_deployment(deployment)
        self._check_parameters(deployment, parameters)
        run_id = str(uuid.uuid4())
        if idempotency_key:
            run_id = self._keys.setdefault((deployment, idempotency_key), run_id)
        if run_id not in self._runs:
            self._runs[run_id] = _FakeRun(name or f"run-{len(self._runs) + 1}", deployment)
            self._parameters[run_id] = dict(parameters)
        return run_id

    def wait(self, run_id: str, timeout: float, on_state: OnState | None = None) -> RunState:
        """See :meth:`Orchestrator.wait`; ``timeout`` 0 only looks."""
        run = self._find(run_id)
        if on_state:
            on_state(_fake_state(run_id, run))
        if run.state == "Pending":
            if timeout <= 0:
                raise RunUnfinished(f"run {run.name} is {run.state} after {timeout:g} s: see {_fake_url(run_id)}")
            self._execute(run_id, run)
            if on_state:
                on_state(_fake_state(run_id, run))
        return _fake_state(run_id, run)

    def tasks(self, run_id: str) -> list[TaskState]:
        """Plain functions have no tasks."""
        self.check()
        return []

    def logs(self, run_id: str) -> list[str]:
        """See :meth:`Orchestrator.logs`."""
        self.check()
        return list(self._runs[run_id].lines) if run_id in self._runs else []

    def set_schedules(self, active: bool) -> None:
        """See :meth:`Orchestrator.set_schedules`."""
        self.check()
        self._paused = not active

    def emit(self, event: str, resource: str, payload: Mapping[str, Any]) -> None:
        """See :meth:`Orchestrator.emit`."""
        self.check()
        self.events.append((event, resource, dict(payload)))

    def cancel_stale(self) -> int:
        """See :meth:`Orchestrator.cancel_stale`."""
        self.check()
        stale = [run for run in self._runs.values() if run.state == "Running"]
        for run in stale:
            run.state, run.message = "Crashed", "left behind by a stack that was stopped"
        return len(stale)

    def start(self, run_id: str) -> None:
        """Leave the run in state Running, as a worker does that is killed at its work."""
        self._find(run_id).state = "Running"

    def _info(self, name: str) -> DeploymentInfo:
        runs = [run for run in self._runs.values() if run.deployment == name and run.state != "Pending"]
        last = runs[-1].state if runs else None
        return DeploymentInfo(name, name.partition("/")[0], "by hand", self._paused, last, f"fake://{name}")

    def _find(self, run_id: str) -> _FakeRun:
        self.check()
        if run_id not in self._runs:
            raise UnknownRun(f"no run {run_id}: list them at fake://runs")
        return self._runs[run_id]

    def _check_parameters(self, deployment: str, parameters: Mapping[str, Any]) -> None:
        try:
            inspect.signature(self._bodies[deployment]).bind(**parameters)
        except TypeError as error:
            raise RefusedParameters(f"{deployment} does not take {dict(parameters)!r}: {error}") from error

    def _execute(self, run_id: str, run: _FakeRun) -> None:
        try:
            said = self._bodies[run.deployment](**self._parameters[run_id])
        except Exception as error:  # whatever a flow raises is the run's outcome, not ours
            run.state, run.message = "Failed", f"Flow run encountered an exception: {error!r}"
            return
        run.state = "Completed"
        run.lines += [said] if isinstance(said, str) else list(said or [])


def _fake_url(run_id: str) -> str:
    return f"fake://runs/{run_id}"


def _fake_state(run_id: str, run: _FakeRun) -> RunState:
    final = run.state.upper() in FINAL
    return RunState(run.name, run.state, run.message, _fake_url(run_id), final, run.state == "Completed")
