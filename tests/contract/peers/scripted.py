"""A model server that answers what the test wrote down, for what no real server can be brought to do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer: JSON of ``body`` unless that is bytes already."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait_seconds: float = 0

    @property
    def data(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Scripted:
    """What to answer by path, and what was asked."""

    url: str
    replies: dict[str, Reply]
    asked: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)
    drops: int = 0
    """Read so many requests more and end their connections without an answer."""
    hang_up: bool = False
    """End each connection after its answer without saying so, as a server does that has waited long enough."""


@contextmanager
def scripted(replies: dict[str, Reply], port: int = 0) -> Iterator[Scripted]:
    """A server on a port of its own, or on ``port``; what no reply is written for is a 404."""
    state = Scripted("", replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append((self.path, body, dict(self.headers.items())))
            state.connections.add(self.client_address[:2])
            if state.drops:
                state.drops -= 1
                self.close_connection = True
                return
            reply = state.replies.get(self.path, Reply({"error": f"nothing at {self.path}"}, 404))
            time.sleep(reply.wait_seconds)
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(reply.data)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.data)
            self.close_connection = state.hang_up

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # clients that went away

    with Server(("127.0.0.1", port), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
