"""What edgeloop asks of an orchestrator, in types: the protocol, what it tells, and the ways it can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
"""Types of state that a run never leaves."""


class OrchestratorUnavailable(Unavailable):
    """Prefect does not answer, or answers that it cannot right now."""


class OrchestratorRefused(EdgeloopError):
    """Prefect answered, and refused for a reason that has no class of its own."""


class UnknownDeployment(BadInput):
    """No deployment has this name."""


class UnknownRun(BadInput):
    """No flow run has this id."""


class RefusedParameters(BadInput):
    """The parameters do not fit what the deployment's flow takes."""


class RunUnfinished(EdgeloopError):
    """The run did not end within the time given; it goes on."""


@dataclass(frozen=True)
class DeploymentInfo:
    """A deployment as a list shows it."""

    name: str
    """``flow/deployment``."""
    flow: str
    schedule: str
    """In words: ``every 30 s``, ``cron 0 3 * * * UTC``, ``by hand``."""
    paused: bool
    last_state: str | None
    """Name of the state of the newest run that was started, such as ``Completed``; None before the first."""
    url: str


@dataclass(frozen=True)
class RunState:
    """Where a run stands."""

    name: str
    """Name of the run."""
    state: str
    """Prefect's name of the state, such as ``Running``."""
    message: str
    url: str
    final: bool
    """Whether the run has ended."""
    succeeded: bool
    """Whether it ended well."""


@dataclass(frozen=True)
class TaskState:
    """One step of a run."""

    name: str
    """Name of the task, such as ``train``."""
    state: str
    seconds: float
    """Time spent running; for a task that runs, until now."""


OnState = Callable[[RunState], None]


class Orchestrator(Protocol):
    """Runs flows by the name of their deployment."""

    def check(self) -> None:
        """Return if the orchestrator is healthy.

        Raises:
            OrchestratorUnavailable: it is not.
        """

    def deployments(self) -> list[DeploymentInfo]:
        """List edgeloop's deployments by name."""

    def run(
        self,
        deployment: str,
        parameters: Mapping[str, Any],
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Ask for a run of ``flow/deployment``; the same key gives the same run. Returns the run's id.

        Raises:
            UnknownDeployment, RefusedParameters: the user's mistake.
        """

    def wait(self, run_id: str, timeout: float, on_state: OnState | None = None) -> RunState:
        """Wait until the run has ended, at most ``timeout`` seconds; ``on_state`` sees each new state.

        Raises:
            UnknownRun: no such run.
            RunUnfinished: it has not ended in time.
        """

    def tasks(self, run_id: str) -> list[TaskState]:
        """Return the tasks that the run has begun so far, in the order in which they began."""

    def logs(self, run_id: str) -> list[str]:
        """Return the lines that the run has logged so far, oldest first."""

    def set_schedules(self, active: bool) -> None:
        """Resume or pause the schedules of all of edgeloop's deployments."""

    def emit(self, event: str, resource: str, payload: Mapping[str, Any]) -> None:
        """Publish an event, such as ``edgeloop.release.built`` about ``edgeloop.service.cats-dogs``."""

    def cancel_stale(self) -> int:
        """Clear what an earlier life left behind; returns how many runs that were.

        Only for start-up, while no worker runs: what looks alive then is dead and holds a concurrency slot.
        """


def unknown_deployment(name: str) -> UnknownDeployment:
    return UnknownDeployment(f"no deployment {name}: register it with  python -m deployments.register")
