"""An overview of a fleet that is full of things to show."""

from __future__ import annotations

from typing import Any

DIGEST = "sha256:" + "ab12cd34ef56" + "0" * 52
OTHER = "sha256:" + "9f8e7d6c5b4a" + "1" * 52


def node(name: str, ring: int, service: str, **other: Any) -> dict[str, Any]:
    """A node that serves what is wanted, but for what ``other`` says."""
    return {
        "node": name,
        "ring": ring,
        "service": service,
        "serving": DIGEST,
        "wanted": DIGEST,
        "online": True,
        "last_error": None,
        "at": "2026-01-01T00:00:00+00:00",
        **other,
    }


def part(name: str, address: str = "", missing: str | None = None, alive: bool = True) -> dict[str, Any]:
    """A part that works unless something is ``missing``."""
    return {
        "name": name,
        "pid": 7 if alive else None,
        "alive": alive,
        "healthy": missing is None,
        "missing": missing,
        "address": address,
    }


def flow(name: str, schedule: str, last: str | None, paused: bool = False) -> dict[str, Any]:
    """A deployment."""
    url = "http://127.0.0.1:4200/deployments/deployment/1"
    found = {"name": name, "flow": name.split("/", maxsplit=1)[0], "schedule": schedule, "paused": paused}
    return {**found, "last_state": last, "url": url}


def empty() -> dict[str, Any]:
    """A home on which nothing runs and nothing answers."""
    return {
        "home": "/somewhere/home",
        "stack": {"home": "/somewhere/home", "running": False, "supervisor": None, "addresses": {}, "parts": []},
        "flows": [],
        "champions": {},
        "nodes": [],
        "problems": ["MLflow at http://127.0.0.1:5000 does not answer: is  edgeloop up  running?"],
        "unknown": ["champions"],
    }


def healthy() -> dict[str, Any]:
    """A fleet with nothing wrong."""
    parts = [
        part("prefect", "http://127.0.0.1:4200"),
        part("mlflow", "http://127.0.0.1:5000"),
        part("broker", "mqtt://127.0.0.1:1883"),
        part("page", "http://127.0.0.1:8080"),
        part("edge-1", "http://127.0.0.1:8081"),
        part("edge-2", "http://127.0.0.1:8082"),
        part("runner"),
    ]
    done = {"version": "4", "release": DIGEST, "rollout": "done", "reason": "ring 1: 3 of 3 nodes serve it"}
    return {
        **empty(),
        "stack": {"home": "/somewhere/home", "running": True, "supervisor": 6, "addresses": {}, "parts": parts},
        "flows": [
            flow("ingest/ingest", "every 30 s", "Completed"),
            flow("retrain/retrain", "every 1 min", "Running"),
            flow("rollout/rollout", "every 30 s", "Completed"),
            flow("loop/loop", "by hand", None, paused=True),
        ],
        "champions": {"digits": done, "wine-rater": None},
        "nodes": [node("edge-1", 0, "digits"), node("edge-2", 1, "digits")],
        "problems": [],
        "unknown": [],
    }


def troubled() -> dict[str, Any]:
    """A fleet with much wrong."""
    found = healthy()
    found["stack"]["parts"][1] = part(
        "mlflow", "http://127.0.0.1:5000", "http://127.0.0.1:5000/health does not answer (Connection refused)"
    )
    found["stack"]["parts"][5] = part("edge-2", "http://127.0.0.1:8082", "its process is gone", alive=False)
    found["champions"]["digits"] = {
        "version": "5",
        "release": OTHER,
        "rollout": "reverted",
        "reason": "ring 0: edge-1 gave it up: layer head does not verify: 3f2a is wanted and 77b0 was read",
    }
    found["champions"]["cats-dogs"] = {"version": "2", "release": DIGEST, "rollout": "moving", "reason": "champion set"}
    found["nodes"] = [
        node("edge-1", 0, "digits", last_error="release 9f8e7d6c5b4a: layer head does not verify"),
        node("edge-2", 1, "digits", online=False),
        node("edge-3", 1, "cats-dogs", wanted=OTHER),
        node("edge-4", 1, "cats-dogs", serving=None, wanted=None),
    ]
    found["flows"][0]["last_state"] = "Failed"
    return found
