"""Makes Prefect know what edgeloop offers, because a deployment that only exists in a file never runs.

Idempotent: the work pool, the deployments of ``prefect.yaml`` with their schedules and concurrency limits,
and one automation are created or brought up to date; what the file no longer names is removed, and what
somebody has paused stays paused.
Run it with ``PREFECT_API_URL`` set:  ``python -m deployments.register``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

TAG = "edgeloop"
LOST_RUNS = "edgeloop: a run without heartbeat has crashed"
#: Five heartbeats of the 30 s that ``prefect.yaml`` sets; with Prefect's own 180 s it would end live runs.
LOST_AFTER = timedelta(seconds=150)
_DEPLOY_SECONDS = 300
_ALIVE = "prefect.flow-run.heartbeat"
_ENDED = ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended", "AwaitingRetry")


class NoServer(BadInput):
    """``PREFECT_API_URL`` is not set, so there is no server to register with."""


class NoDefinitions(BadInput):
    """The rooms hold no usable ``prefect.yaml``."""


class ServerUnreachable(Unavailable):
    """The Prefect server did not answer."""


class DeployFailed(EdgeloopError):
    """``prefect deploy`` ended with an error, or left a deployment out."""


def register(rooms: Path | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """Register everything in ``<rooms>/prefect.yaml`` with the server at ``PREFECT_API_URL``.

    Args:
        rooms: directory of ``prefect.yaml`` and the ``flows`` package; default: the one this module lies in.
        environ: environment for the Prefect command line; default: the process's own.

    Returns:
        Names of the deployments, ``flow/deployment``, sorted.

    Raises:
        NoServer, NoDefinitions, ServerUnreachable, DeployFailed: see there.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    env = dict(os.environ if environ is None else environ)
    root = (rooms or Path(__file__).parent.parent).absolute()
    url = env.get("PREFECT_API_URL")
    if not url:
        raise NoServer("PREFECT_API_URL is not set: start the stack with  edgeloop up  or name a server")
    pools, wanted = read_definitions(root / "prefect.yaml")
    try:
        with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
            for pool in pools:
                ensure_pool(client, pool)
            paused = [found["id"] for found in deployed(client) if found["paused"]]
            deploy_all(root, env)
            keep_paused(client, paused)
            ensure_automation(client)
            return sorted(prune(client, wanted))
    except httpx.TransportError as error:
        raise ServerUnreachable(f"Prefect at {url} does not answer ({error}): is the server running?") from error


def read_definitions(path: Path) -> tuple[list[str], set[str]]:
    """Return the work pools and the deployment names that a ``prefect.yaml`` mentions."""
    try:
        entries = yaml.safe_load(path.read_text())["deployments"]
        return sorted({entry["work_pool"]["name"] for entry in entries}), {entry["name"] for entry in entries}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise NoDefinitions(f"{path} holds no deployments ({error!r}): set EDGELOOP_ROOMS to the checkout") from error


def ensure_pool(client: SyncPrefectClient, name: str) -> None:
    """Create the process work pool ``name`` unless it is there."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        wanted = WorkPoolCreate(name=name, type="process", base_job_template=template, description="Runs of edgeloop")
        try:
            client.create_work_pool(wanted)
        except ObjectAlreadyExists:  # somebody was quicker
            return


def deploy_all(rooms: Path, environ: Mapping[str, str]) -> None:
    """Run ``prefect --no-prompt deploy --all`` in ``rooms``."""
    # Without the variable the placeholder in the pull step stays, and each worker fills in its own rooms.
    env = {name: value for name, value in environ.items() if name != "EDGELOOP_ROOMS"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(rooms), env.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        done = subprocess.run(
            command, cwd=rooms, env=env, text=True, capture_output=True, timeout=_DEPLOY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DeployFailed(f"prefect deploy did not end within {_DEPLOY_SECONDS} s: is the server healthy?") from error
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise DeployFailed(f"prefect deploy in {rooms} failed: {lines[-1] if lines else 'it said nothing'}")


def deployed(client: SyncPrefectClient) -> list[dict[str, Any]]:
    """List edgeloop's deployments as the server describes them."""
    wanted = {"deployments": {"tags": {"all_": [TAG]}}}
    return list(client.request("POST", "/deployments/filter", json=wanted).raise_for_status().json())


def keep_paused(client: SyncPrefectClient, ids: Sequence[str]) -> None:
    """Pause again what somebody had paused: deploying sets every schedule going."""
    for identity in ids:
        path_params = {"id": identity}
        client.request("POST", "/deployments/{id}/pause_deployment", path_params=path_params).raise_for_status()


def ensure_automation(client: SyncPrefectClient) -> None:
    """Create the automation that declares runs without heartbeat crashed, unless it is there."""
    listed = client.request("POST", "/automations/filter", json={"automations": {"name": {"any_": [LOST_RUNS]}}})
    listed.raise_for_status()
    if not listed.json():
        body = lost_runs().model_dump(mode="json", exclude_unset=True)
        client.request("POST", "/automations/", json=body).raise_for_status()


def lost_runs() -> AutomationCore:
    """Describe the automation: a heartbeat was seen, and then for a while neither another one nor an end."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    tag = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
    trigger: dict[str, Any] = {
        "after": {_ALIVE},
        "expect": {_ALIVE, *(f"prefect.flow-run.{state}" for state in _ENDED)},
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": tag,
        "for_each": {"prefect.resource.id"},
        "posture": Posture.Proactive,
        "threshold": 1,
        "within": LOST_AFTER,
    }
    crashed = ChangeFlowRunState(
        name=None, state=StateType.CRASHED, message="no heartbeat: its process is gone", force=False
    )
    return AutomationCore(
        name=LOST_RUNS,
        description="Frees the concurrency slot of a run whose process was killed.",
        enabled=True,
        trigger=EventTrigger(type="event", **trigger),
        actions=[crashed],
    )


def prune(client: SyncPrefectClient, wanted: set[str]) -> list[str]:
    """Delete edgeloop's deployments that are not wanted any more; return the full names of the rest.

    Raises:
        DeployFailed: a wanted deployment is missing.
    """
    flows = {flow["id"]: flow["name"] for flow in client.request("POST", "/flows/filter", json={}).json()}
    kept = []
    for found in deployed(client):
        if found["name"] in wanted:
            kept.append(f"{flows[found['flow_id']]}/{found['name']}")
        else:
            client.delete_deployment(found["id"])
    if missing := wanted - {name.split("/")[1] for name in kept}:
        raise DeployFailed(f"not registered: {', '.join(sorted(missing))}; does each have the tag {TAG}?")
    return kept


def main() -> int:
    """Register, and say what is registered; exit code 0, or the error's."""
    try:
        for name in register():
            print(name)
    except EdgeloopError as error:
        print(f"edgeloop: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
