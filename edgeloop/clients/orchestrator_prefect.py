"""The orchestrator that is a Prefect 3 server, over its REST API: importing Prefect itself takes a second."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from edgeloop.clients.orchestrator_types import (
    FINAL,
    DeploymentInfo,
    OnState,
    RefusedParameters,
    RunState,
    RunUnfinished,
    TaskState,
    UnknownRun,
    unknown_deployment,
)
from edgeloop.clients.prefect_api import PrefectApi

_POLL_SECONDS = 0.2
_LATE = timedelta(seconds=60)


class PrefectOrchestrator:
    """Adapter over the REST API of a Prefect 3 server."""

    def __init__(
        self,
        api_url: str,
        *,
        tag: str = "edgeloop",
        timeout: float = 30.0,
        auth: tuple[str, str] | None = None,
    ) -> None:
        """Take the API's address (``http://host:4200/api``); nothing is sent yet. ``timeout`` in seconds."""
        self._api = PrefectApi(api_url.rstrip("/"), timeout, auth)
        self._ui = self._api.url.removesuffix("/api")
        self._tag = tag

    def close(self) -> None:
        """Close the connections; forgetting the object, or the end of the process, does so too."""
        self._api.close()

    def check(self) -> None:
        """See :meth:`Orchestrator.check`."""
        self._api.send("GET", "/health", tries=1)

    def deployments(self) -> list[DeploymentInfo]:
        """See :meth:`Orchestrator.deployments`."""
        flows = {flow["id"]: flow["name"] for flow in self._api.all("/flows/filter", {})}
        return sorted((self._info(found, flows) for found in self._own()), key=lambda info: info.name)

    def run(
        self,
        deployment: str,
        parameters: Mapping[str, Any],
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """See :meth:`Orchestrator.run`."""
        found = self._api.send("GET", f"/deployments/name/{deployment}", missing=unknown_deployment(deployment)).json()
        refused = f"{deployment} does not take {dict(parameters)!r}"
        # The server lets unknown names pass, and the run would fail a minute later.
        if unknown := parameters.keys() - found["parameter_openapi_schema"].get("properties", {}).keys():
            raise RefusedParameters(f"{refused}: it knows no {', '.join(sorted(unknown))}")
        # A key of our own makes the repetition after a 503 harmless.
        body: dict[str, Any] = {
            "parameters": dict(parameters),
            "idempotency_key": idempotency_key or uuid.uuid4().hex,
            "state": {"type": "SCHEDULED"},
        }
        if name:
            body["name"] = name
        made = self._api.send("POST", f"/deployments/{found['id']}/create_flow_run", body, parameters_of=refused)
        return str(made.json()["id"])

    def wait(self, run_id: str, timeout: float, on_state: OnState | None = None) -> RunState:
        """See :meth:`Orchestrator.wait`."""
        deadline = time.monotonic() + timeout
        seen = None
        while True:
            now = self._state(run_id)
            if on_state and now != seen:
                on_state(now)
            seen = now
            if now.final:
                return now
            if time.monotonic() >= deadline:
                raise RunUnfinished(f"run {now.name} is {now.state} after {timeout:g} s: see {now.url}")
            time.sleep(_POLL_SECONDS)

    def tasks(self, run_id: str) -> list[TaskState]:
        """See :meth:`Orchestrator.tasks`."""
        found = self._api.all("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        begun = sorted((t for t in found if t["start_time"]), key=lambda t: str(t["start_time"]))
        return [
            TaskState(
                name=_task_name(str(t["name"])),
                state=str(t["state_name"]),
                seconds=float(t["estimated_run_time"] or 0.0),
            )
            for t in begun
        ]

    def logs(self, run_id: str) -> list[str]:
        """See :meth:`Orchestrator.logs`."""
        wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        return [str(line["message"]) for line in self._api.all("/logs/filter", wanted)]

    def set_schedules(self, active: bool) -> None:
        """See :meth:`Orchestrator.set_schedules`."""
        verb = "resume" if active else "pause"
        for found in self._own():
            self._api.send("POST", f"/deployments/{found['id']}/{verb}_deployment")

    def emit(self, event: str, resource: str, payload: Mapping[str, Any]) -> None:
        """See :meth:`Orchestrator.emit`."""
        body = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": event,
            "resource": {"prefect.resource.id": resource},
            "payload": dict(payload),
        }
        self._api.send("POST", "/events", [body])

    def cancel_stale(self) -> int:
        """See :meth:`Orchestrator.cancel_stale`."""
        dead = self._alive_runs()
        for found in dead:
            self._end(found["id"], "CRASHED", "left behind by a stack that was stopped")
        late = [found for found in self._late_runs() if found["auto_scheduled"]]
        for found in late:
            self._end(found["id"], "CANCELLED", "its time passed while the stack was stopped")
        self._free_slots()
        return len(dead) + len(late)

    def _own(self) -> list[dict[str, Any]]:
        return self._api.all("/deployments/filter", {"deployments": {"tags": {"all_": [self._tag]}}})

    def _info(self, found: Mapping[str, Any], flows: Mapping[str, str]) -> DeploymentInfo:
        flow = flows.get(found["flow_id"], "?")
        return DeploymentInfo(
            name=f"{flow}/{found['name']}",
            flow=flow,
            schedule=schedule_text(found["schedules"]),
            paused=bool(found["paused"]),
            last_state=self._last_state(found["id"]),
            url=f"{self._ui}/deployments/deployment/{found['id']}",
        )

    def _last_state(self, deployment_id: str) -> str | None:
        wanted = {
            "flow_runs": {
                "deployment_id": {"any_": [deployment_id]},
                "state": {"type": {"not_any_": ["SCHEDULED"]}},
            },
            "sort": "EXPECTED_START_TIME_DESC",
            "limit": 1,
        }
        runs = self._api.send("POST", "/flow_runs/filter", wanted).json()
        return str(runs[0]["state_name"]) if runs else None

    def _state(self, run_id: str) -> RunState:
        missing = UnknownRun(f"no run {run_id}: list them at {self._ui}/runs")
        found = self._api.send("GET", f"/flow_runs/{run_id}", missing=missing).json()
        state = found["state"] or {"type": "PENDING", "name": "Pending", "message": None}
        return RunState(
            name=found["name"],
            state=state["name"],
            message=state["message"] or "",
            url=f"{self._ui}/runs/flow-run/{run_id}",
            final=state["type"] in FINAL,
            succeeded=state["type"] == "COMPLETED",
        )

    def _alive_runs(self) -> list[dict[str, Any]]:
        """Runs that claim a process: edgeloop's own and, since they carry no tag, the runs below them."""
        alive = {"state": {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}}
        level = self._api.all("/flow_runs/filter", {"flow_runs": {**alive, "tags": {"all_": [self._tag]}}})
        found = {run["id"]: run for run in level}
        while level:
            parents = {"parent_flow_run_id": {"any_": [run["id"] for run in level]}}
            below = self._api.all("/flow_runs/filter", {"flow_runs": {**alive, **parents}})
            level = [run for run in below if run["id"] not in found]
            found.update({run["id"]: run for run in level})
        return list(found.values())

    def _late_runs(self) -> list[dict[str, Any]]:
        before = (datetime.now(UTC) - _LATE).isoformat()
        late = {
            "tags": {"all_": [self._tag]},
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "expected_start_time": {"before_": before},
        }
        return self._api.all("/flow_runs/filter", {"flow_runs": late})

    def _end(self, run_id: str, state: str, message: str) -> None:
        body = {"state": {"type": state, "message": message}, "force": True}
        self._api.send("POST", f"/flow_runs/{run_id}/set_state", body)

    def _free_slots(self) -> None:
        # The server forgets leases kept in memory when it stops, but not the slots that they had taken.
        for found in self._own():
            limit = found.get("global_concurrency_limit")
            if limit and limit["active_slots"]:
                self._api.send("PATCH", f"/v2/concurrency_limits/{limit['id']}", {"active_slots": 0})


def _task_name(run_name: str) -> str:
    """The task's name, out of the name of its run.

    The server keeps no task names. `task_key` holds the name of the function, which differs where `@task(name=...)`
    does; the run's name begins with the task's: Prefect calls it `train-0a1`, and `task_run_name` in the rooms is
    `train-SERVICE`. So a task's own name has no hyphen.
    """
    return run_name.partition("-")[0]


def schedule_text(schedules: Sequence[Mapping[str, Any]]) -> str:
    """Put a deployment's active schedules in words."""
    return ", ".join(_one_schedule(entry["schedule"]) for entry in schedules if entry["active"]) or "by hand"


def _one_schedule(schedule: Mapping[str, Any]) -> str:
    if "interval" in schedule:
        return f"every {_span(round(schedule['interval']))}"
    if "cron" in schedule:
        return f"cron {schedule['cron']} {schedule.get('timezone') or 'UTC'}"
    return str(schedule.get("rrule", "by a rule"))


def _span(seconds: int) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
