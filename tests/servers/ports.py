"""Free loopback ports and waiting by condition, so that no test sleeps for a guess or fights over a port."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

#: Ports of each worker. They lie below those that the system gives to connections, which would else take one between
#: the moment it is chosen and the moment a server binds it.
_FIRST, _EACH, _MOST_WORKERS = 10_000, 2_000, 5
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _MOST_WORKERS
_turns = itertools.count(os.getpid() * 37)


def free_ports(count: int) -> list[int]:
    """Different ports that were free on 127.0.0.1 a moment ago, held together while choosing."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = _FIRST + _EACH * _worker + next(_turns) % _EACH
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                found.append(port)
    return found


def free_port() -> int:
    """One port that was free on 127.0.0.1 a moment ago."""
    return free_ports(1)[0]


def wait_until(what: str, done: Callable[[], bool], *, seconds: float = 30.0, every: float = 0.05) -> None:
    """Asks `done` until it says yes; raises TimeoutError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether something accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
