"""What a local stack is made of: one :class:`Part` per process, built from a :class:`StackPlan`.

Nothing is started here; a part is a command, where it runs, and how to see that it works.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import yaml

from edgeloop.errors import BadInput, MissingExtra
from edgeloop.stack.configs import amqtt_config, mosquitto_config, node_config, write_text
from edgeloop.stack.environment import child_environment, join_paths
from edgeloop.stack.health import broker_answers, http_answers, worker_online
from edgeloop.stack.part import Part
from edgeloop.stack.parts_hook import hook_part, webhook_settings
from edgeloop.stack.plan import StackPlan, build_addresses
from edgeloop.stack.ports import HOST

__all__ = ["POOL", "WORKER", "NoRooms", "NoServices", "Part", "build_parts", "find_mosquitto", "mlflow_part"]

POOL = "edgeloop"
WORKER = "runner"


class NoRooms(BadInput):
    """The directory of flows and deployments is not where it was looked for."""


class NoServices(BadInput):
    """Nodes are wanted and no service that they could serve."""


def build_parts(
    plan: StackPlan,
    ports: Mapping[str, int],
    life: Mapping[str, str],
    environ: Mapping[str, str] | None = None,
) -> list[Part]:
    """The processes of the plan, each after those it needs; writes the configuration files they read.

    Args:
        ports: one per part that listens.
        life: the mark that every process of this stack carries in its environment.

    Raises:
        NoRooms: a runner is wanted and there is no deployments/register.py.
        NoServices: nodes are wanted and the plan has no service.
        MissingExtra: Prefect, MLflow, any broker or what the page is made with is not installed.
    """
    if plan.nodes and not plan.services:
        raise NoServices(
            f"{plan.nodes} nodes and no service: put a YAML into {plan.home / 'services'} or ask for no nodes"
        )
    addresses = build_addresses(plan, ports)
    env = {
        **child_environment(plan, addresses, os.environ if environ is None else environ),
        **life,
    }
    mosquitto = find_mosquitto()
    servers = [
        prefect_part(plan, ports["prefect"], addresses, env),
        mlflow_part(plan, ports["mlflow"], addresses, env),
        broker_part(plan, ports["broker"], addresses, env, mosquitto),
    ]
    runner = [register_part(plan, env), runner_part(plan, addresses, env)] if plan.runner else []
    numbers = range(1, plan.nodes + 1)
    nodes = [node_part(plan, number, addresses, env, shared=mosquitto is not None) for number in numbers]
    page = [page_part(plan, ports["page"], addresses, env)] if plan.page else []
    hook = [hook_part(plan, ports["hook"], addresses, env)] if plan.hook else []
    return [*servers, *runner, *nodes, *page, *hook]


#: Scheduled runs are made two minutes ahead, not an hour of 30 s ticks; leases outlive a restart of the server.
PREFECT_SERVER = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "00:02:00",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "6",
    # Fewer writers at a time: a request that finds SQLite locked is sent again two seconds later.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}


def prefect_part(plan: StackPlan, port: int, addresses: Mapping[str, str], env: Mapping[str, str]) -> Part:
    """The orchestrator's API and page."""
    _installed("prefect")
    folder = _folder(plan.home / "prefect")
    database = {"PREFECT_API_DATABASE_CONNECTION_URL": plan.database} if plan.database else {}
    return Part(
        name="prefect",
        command=(
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            HOST,
            "--port",
            str(port),
        ),
        env={**env, **PREFECT_SERVER, **database},
        cwd=folder,
        health=lambda: http_answers(f"{addresses['prefect']}/health"),
        address=addresses["prefect_ui"],
    )


def mlflow_part(plan: StackPlan, port: int, addresses: Mapping[str, str], env: Mapping[str, str]) -> Part:
    """The model registry and experiment tracking, its database and artifacts in the home."""
    version = _installed("mlflow")
    folder = _folder(plan.home / "mlflow")
    hook = webhook_settings(folder) if plan.hook else {}
    command, extra = _mlflow_command(version, port, f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))
    return Part(
        name="mlflow",
        command=command,
        env={**env, **extra, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **hook},
        cwd=folder,
        health=lambda: http_answers(f"{addresses['mlflow']}/health"),
        address=addresses["mlflow"],
    )


def _mlflow_command(version: str, port: int, database: str, artifacts: str) -> tuple[tuple[str, ...], dict[str, str]]:
    where = ("--host", HOST, "--port", str(port), "--workers", "1")
    if not version.startswith("3.17."):
        stores = ("--backend-store-uri", database, "--artifacts-destination", artifacts)
        return (sys.executable, "-m", "mlflow", "server", *where, *stores), {}
    # What `mlflow server` of this release runs as its child. Without the parent it is one process, not two:
    # a third less to start and half the memory.
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    return (
        sys.executable,
        "-m",
        "uvicorn",
        *where,
        "mlflow.server.fastapi_app:app",
    ), variables


def find_mosquitto() -> str | None:
    """Path of the mosquitto broker; Debian keeps it where an ordinary user's PATH does not look."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def broker_part(
    plan: StackPlan,
    port: int,
    addresses: Mapping[str, str],
    env: Mapping[str, str],
    mosquitto: str | None,
) -> Part:
    """The MQTT broker: mosquitto, or the slower amqtt where that is not installed."""
    folder = _folder(plan.home / "mosquitto")
    if mosquitto:
        config = write_text(folder / "mosquitto.conf", mosquitto_config(port, folder))
        command: tuple[str, ...] = (mosquitto, "-c", str(config))
    else:
        _installed("amqtt")
        config = write_text(folder / "amqtt.yaml", yaml.safe_dump(amqtt_config(port)))
        command = (
            sys.executable,
            "-m",
            "amqtt.scripts.broker_script",
            "-c",
            str(config),
        )
    address = addresses["broker"]
    return Part("broker", command, env, folder, lambda: broker_answers(address), address=address)


def register_part(plan: StackPlan, env: Mapping[str, str]) -> Part:
    """Makes the deployments known to Prefect, once per start; registering again changes nothing."""
    rooms = plan.rooms.absolute()
    if not (rooms / "deployments" / "register.py").is_file():
        raise NoRooms(f"no deployments/register.py in {rooms}: run in the project's directory or set EDGELOOP_ROOMS")
    return Part(
        name="register",
        command=(sys.executable, "-m", "deployments.register"),
        env=_with_rooms(plan, env),
        cwd=rooms,
        health=lambda: None,
        needs=("prefect",),
        once=True,
    )


def runner_part(plan: StackPlan, addresses: Mapping[str, str], env: Mapping[str, str]) -> Part:
    """The Prefect worker that runs the flows as processes on this machine."""
    since = datetime.now(UTC)
    return Part(
        name="runner",
        command=(sys.executable, "-m", "deployments.runner", POOL, WORKER),
        env={**_with_rooms(plan, env), "PREFECT_WORKER_QUERY_SECONDS": "1"},
        cwd=plan.rooms.absolute(),
        health=lambda: worker_online(addresses["prefect"], POOL, WORKER, since),
        needs=("prefect", "register"),
        # It gives running flows a moment to end.
        grace=15.0,
    )


def _with_rooms(plan: StackPlan, env: Mapping[str, str]) -> dict[str, str]:
    return {**env, "PYTHONPATH": join_paths(str(plan.rooms.absolute()), env.get("PYTHONPATH"))}


def node_part(
    plan: StackPlan,
    number: int,
    addresses: Mapping[str, str],
    env: Mapping[str, str],
    shared: bool,
) -> Part:
    """One edge node as a process. ``shared``: the broker knows shared subscriptions."""
    name = f"edge-{number}"
    folder = _folder(plan.home / "nodes" / name)
    write_text(folder / "root.json", plan.root.decode())
    config = write_text(
        folder / "node.yaml",
        yaml.safe_dump(node_config(plan, number, addresses, shared), sort_keys=False),
    )
    return Part(
        name=name,
        command=(sys.executable, "-m", "edgeloop.edge.node", "--config", str(config)),
        # Threads of numpy's own would fight the interpreters for the cores.
        env={**env, "OPENBLAS_NUM_THREADS": "1"},
        cwd=folder,
        health=lambda: http_answers(f"{addresses[name]}/healthz"),
        needs=("broker",),
        address=addresses[name],
    )


def page_part(plan: StackPlan, port: int, addresses: Mapping[str, str], env: Mapping[str, str]) -> Part:
    """The fleet page; it needs nobody, because it is there to say who is missing."""
    _installed("jinja2", "web")
    home = _folder(plan.home)
    return Part(
        name="page",
        command=(sys.executable, "-m", "edgeloop.cli", "--home", str(home), "web", "--port", str(port)),
        env=env,
        cwd=home,
        health=lambda: http_answers(f"{addresses['page']}/healthz"),
        address=addresses["page"],
        grace=5.0,
    )


def _installed(package: str, extra: str = "cloud") -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise MissingExtra(package, extra) from error


def _folder(path: Path) -> Path:
    path = path.absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path
