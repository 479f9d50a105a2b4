"""How a stack is doing, seen from another process: what ``edgeloop status`` shows of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgeloop.settings import Settings
from edgeloop.stack.health import broker_answers, http_answers, worker_online
from edgeloop.stack.parts import POOL, WORKER
from edgeloop.stack.processes import Process
from edgeloop.stack.record import read_record


def stack_status(settings: Settings) -> dict[str, Any]:
    """The stack of the home as JSON-able values; asks every part, at most about two seconds in all.

    Returns:
        ``home``; ``running`` (a supervisor is there); ``supervisor`` (pid or None); ``addresses``; ``parts``:
        a list of ``name, pid, alive, healthy, missing, address``, empty when nothing runs. A part that
        listens is listed also while it has no process, without a pid.
    """
    record = read_record(settings.home)
    if record is None:
        return {
            "home": str(settings.home),
            "running": False,
            "supervisor": None,
            "addresses": {},
            "parts": [],
        }
    with ThreadPoolExecutor(max_workers=8) as pool:
        expected = {**dict.fromkeys(_listening(record.addresses)), **record.parts}
        rows = pool.map(lambda item: _part(item[0], item[1], record.addresses), expected.items())
        parts = list(rows)
    running = record.supervisor.alive
    return {
        "home": str(settings.home),
        "running": running,
        "supervisor": record.supervisor.pid if running else None,
        "addresses": dict(record.addresses),
        "parts": parts,
    }


def _listening(addresses: Mapping[str, str]) -> list[str]:
    return [name for name in addresses if name not in {"prefect_ui", "store"}]


def _part(name: str, process: Process | None, addresses: Mapping[str, str]) -> dict[str, Any]:
    alive = process is not None and process.alive
    missing = recorded_health(name, addresses) if alive else "its process is gone"
    return {
        "name": name,
        "pid": process.pid if process else None,
        "alive": alive,
        "healthy": missing is None,
        "missing": missing,
        "address": addresses.get("prefect_ui" if name == "prefect" else name, ""),
    }


def recorded_health(name: str, addresses: Mapping[str, str]) -> str | None:
    """Ask the part ``name`` of a stack with these addresses; None when it works."""
    if name == "prefect":
        return http_answers(f"{addresses['prefect']}/health")
    if name == "mlflow":
        return http_answers(f"{addresses['mlflow']}/health")
    if name == "broker":
        return broker_answers(addresses["broker"])
    if name == WORKER:
        return worker_online(addresses["prefect"], POOL, WORKER)
    return http_answers(f"{addresses[name]}/healthz") if name in addresses else None
