"""The configuration files that a stack writes for its broker and its nodes, anew at every start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.stack.plan import StackPlan
from edgeloop.stack.ports import HOST


def mosquitto_config(port: int, folder: Path) -> str:
    # As root it would become another user, who cannot write here.
    user = "user root\n" if os.geteuid() == 0 else ""
    return (
        f"# Written by edgeloop up at every start.\n{user}listener {port} {HOST}\nallow_anonymous true\n"
        f"persistence true\npersistence_location {folder}/\nautosave_interval 60\n"
        "max_queued_messages 0\nmax_queued_bytes 268435456\n"
        "set_tcp_nodelay true\npersistent_client_expiration 7d\nmessage_size_limit 16777216\nlog_dest stderr\n"
        "log_type error\nlog_type warning\nlog_type notice\n"
    )


def amqtt_config(port: int) -> dict[str, Any]:
    anonymous = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
        "plugins": anonymous,
    }


def node_config(plan: StackPlan, number: int, addresses: Mapping[str, str], shared: bool) -> dict[str, Any]:
    """The content of a node's ``node.yaml``.

    Nodes share the devices through one subscription group; where the broker knows none, each node gets the
    device that carries its number.
    """
    name = f"edge-{number}"
    devices = [f"device-{number}"] if plan.nodes > 1 else ["+"]
    return {
        "node": name,
        "ring": plan.ring(number),
        "services": list(plan.services),
        "http": addresses[name].removeprefix("http://"),
        "state": str(plan.home.absolute() / "nodes" / name / "state"),
        "store": addresses["store"],
        "broker": addresses["broker"],
        **({"trust": "root.json"} if plan.root else {}),
        **({"group": "nodes"} if shared else {"devices": devices}),
        "poll_seconds": 5,
        "report_seconds": 10,
        "segment_seconds": 30,
    }


def write_text(path: Path, text: str) -> Path:
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    return path
