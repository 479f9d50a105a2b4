"""A Prefect server that is slow to answer is asked again; one that is not there is not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgeloop.clients.orchestrator_types import OrchestratorUnavailable
from edgeloop.clients.prefect_api import PrefectApi


class Stalling(ThreadingHTTPServer):
    """Keeps the first ``stalls`` requests waiting until it ends."""

    daemon_threads = True
    stalls = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked = 0
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answer(BaseHTTPRequestHandler):
    server: Stalling

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        if self.server.asked <= self.server.stalls:
            self.server.ended.wait(30)
            return
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Stalling]:
    with Stalling() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield found
        found.ended.set()
        found.shutdown()
        thread.join(5)


def test_a_request_that_is_not_answered_in_time_is_made_again(server: Stalling) -> None:
    server.stalls = 2
    assert PrefectApi(server.url, 0.2, None).all("/deployments/filter", {}) == []
    assert server.asked == 3


def test_a_server_that_stays_silent_is_given_up(server: Stalling) -> None:
    server.stalls = 100
    with pytest.raises(OrchestratorUnavailable, match="timed out"):
        PrefectApi(server.url, 0.1, None).send("POST", "/deployments/filter", {})
    assert server.asked == 3


def test_a_probe_asks_once(server: Stalling) -> None:
    server.stalls = 100
    with pytest.raises(OrchestratorUnavailable):
        PrefectApi(server.url, 0.1, None).send("POST", "/deployments/filter", {}, tries=1)
    assert server.asked == 1


def test_no_server_is_no_reason_to_wait() -> None:
    with pytest.raises(OrchestratorUnavailable, match="is the stack up"):
        PrefectApi("http://127.0.0.1:9", 5, None).send("POST", "/deployments/filter", {})
