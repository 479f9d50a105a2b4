"""Does a part answer? Each check returns None when it does, else what is missing; it never raises."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

Health = Callable[[], str | None]
TIMEOUT = 2.0
#: MQTT 3.1.1 CONNECT, clean session, keep-alive 10 s, empty client id.
_CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
_CONNACK = b"\x20\x02\x00\x00"
_DISCONNECT = b"\xe0\x00"


def _open(url: str, body: bytes | None = None) -> bytes:
    # No proxy: these are loopback addresses, whatever the environment says about the way out.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json"} if body else {}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - the stack's own addresses
    with opener.open(request, timeout=TIMEOUT) as reply:
        return bytes(reply.read())


def http_answers(url: str) -> str | None:
    """GET ``url`` gives a 2xx."""
    try:
        _open(url)
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code}"
    except (OSError, ValueError) as error:
        return f"{url} does not answer ({_why(error)})"
    return None


def broker_answers(address: str) -> str | None:
    """The broker at ``mqtt://host:port`` acknowledges a CONNECT."""
    try:
        parts = urlsplit(address)
        with socket.create_connection((parts.hostname or "", parts.port or 1883), timeout=TIMEOUT) as link:
            link.sendall(_CONNECT)
            reply = link.recv(4)
            link.sendall(_DISCONNECT)
    except (OSError, ValueError) as error:
        return f"{bare_address(address)} does not answer ({_why(error)})"
    return (
        None
        if reply == _CONNACK
        else f"{bare_address(address)} is not an open MQTT broker (answered {reply.hex() or 'nothing'})"
    )


def bare_address(address: str) -> str:
    """The address without the user and password it may hold."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def worker_online(api: str, pool: str, name: str, since: datetime | None = None) -> str | None:
    """Prefect lists worker ``name`` of ``pool`` as online, with a heartbeat after ``since``."""
    try:
        workers: list[dict[str, Any]] = json.loads(_open(f"{api}/work_pools/{pool}/workers/filter", b"{}"))
        for worker in workers:
            if worker["name"] == name and worker["status"] == "ONLINE" and _after(worker["last_heartbeat_time"], since):
                return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"Prefect does not list the workers of pool {pool} ({_why(error)})"
    return f"worker {name} has not reported to Prefect"


def _after(heartbeat: str | None, since: datetime | None) -> bool:
    return since is None or (heartbeat is not None and datetime.fromisoformat(heartbeat) >= since)


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
