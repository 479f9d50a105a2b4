"""A node's HTTP on a real socket, in a thread."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from edgeloop.edge.http import bind, new_event_loop, server_config
from edgeloop.edge.http.access import TlsFiles
from tests.unit.edge.asking import Web

ROW = json.dumps({"instances": [[0.5, 1]]}).encode()
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, new_event_loop]


class Quiet(uvicorn.Server):
    """A server in a thread: the signals are the test runner's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def serving(
    web: Web, tls: TlsFiles | None = None, loop: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
) -> Iterator[int]:
    server, listener = Quiet(server_config(web.app, tls)), bind("127.0.0.1:0", access_given=False)

    def serve() -> None:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(server.serve([listener]))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        until(lambda: server.started)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def ask(
    connection: http.client.HTTPConnection, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())
