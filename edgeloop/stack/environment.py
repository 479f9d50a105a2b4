"""The environment of a stack's processes: pointed at this stack, and reporting to nobody."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from edgeloop.stack.plan import StackPlan
from edgeloop.stack.ports import HOST

_REPORTING_OFF = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}
# They would lead a child to another server than the stack's, or make every import of it slow.
_DROPPED = (
    "PYTHONDONTWRITEBYTECODE",
    "PREFECT_PROFILE",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_REGISTRY_URI",
)


def child_environment(plan: StackPlan, addresses: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of every part: the caller's, pointed at this stack, with nothing reported to anyone."""
    kept = {name: value for name, value in environ.items() if name not in _DROPPED}
    if kept.get("EDGELOOP_KEYS"):  # relative to where the caller is
        kept["EDGELOOP_KEYS"] = str(Path(kept["EDGELOOP_KEYS"]).absolute())
    direct = ",".join(
        filter(
            None,
            (environ.get("NO_PROXY") or environ.get("no_proxy"), HOST, "localhost"),
        )
    )
    return {
        **kept,
        **_REPORTING_OFF,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "EDGELOOP_HOME": str(plan.home.absolute()),
        "EDGELOOP_STORE": addresses["store"],
        "EDGELOOP_BROKER": addresses["broker"],
        "EDGELOOP_MLFLOW": addresses["mlflow"],
        "EDGELOOP_ROOMS": str(plan.rooms.absolute()),
        "PREFECT_API_URL": addresses["prefect"],
        "PREFECT_HOME": str(plan.home.absolute() / "prefect"),
        # The runner starts flow runs by the name "python", which must be the one that runs this.
        "PATH": join_paths(str(Path(sys.executable).parent), environ.get("PATH")),
        "PYTHONPATH": join_paths(environ.get("PYTHONPATH"), _checkout()),
        "PYTHONUNBUFFERED": "1",
        # Threads of the servers otherwise keep an arena each.
        "MALLOC_ARENA_MAX": "2",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def join_paths(*entries: str | None) -> str:
    return os.pathsep.join(dict.fromkeys(entry for entry in entries if entry))


def _checkout() -> str | None:
    # A child starts elsewhere and must find this very package, also where it was never installed.
    folder = Path(__file__).resolve().parents[2]
    return None if folder.name in {"site-packages", "dist-packages"} else str(folder)
