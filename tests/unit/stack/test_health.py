"""Health checks say what is missing and never raise."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from edgeloop.stack.health import broker_answers, http_answers, worker_online

Start = Callable[[int, object], str]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.stack.health.TIMEOUT", 60.0)


@pytest.fixture
def serve() -> Iterator[Start]:
    servers: list[ThreadingHTTPServer] = []

    def start(status: int, value: object) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(value).encode())

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_http(serve: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nobody()}")
    assert http_answers(serve(200, {})) is None
    assert "answers 503" in str(http_answers(serve(503, {})))
    assert "does not answer" in str(http_answers(f"http://127.0.0.1:{nobody()}"))
    assert http_answers("not an address") is not None


@pytest.mark.parametrize(
    ("reply", "healthy"),
    [(b"\x20\x02\x00\x00", True), (b"\x20\x02\x00\x05", False), (b"", False)],
)
def test_broker(reply: bytes, healthy: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            link, _ = server.accept()
            with link:
                link.recv(64)
                link.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        found = broker_answers(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert (found is None) == healthy


def test_no_broker() -> None:
    assert "does not answer" in str(broker_answers(f"mqtt://127.0.0.1:{nobody()}"))
    assert broker_answers("mqtt://127.0.0.1:port") is not None


def test_a_worker_of_an_earlier_life_is_not_online(serve: Start) -> None:
    now = datetime.now(UTC)
    online = {
        "name": "runner",
        "status": "ONLINE",
        "last_heartbeat_time": now.isoformat().replace("+00:00", "Z"),
    }
    api = serve(200, [{**online, "name": "other"}, online])
    assert worker_online(api, "edgeloop", "runner") is None
    assert worker_online(api, "edgeloop", "runner", now - timedelta(seconds=1)) is None
    assert worker_online(api, "edgeloop", "runner", now + timedelta(seconds=1)) is not None
    assert worker_online(serve(200, [{**online, "status": "OFFLINE"}]), "edgeloop", "runner") is not None
    assert worker_online(serve(404, {}), "edgeloop", "runner") is not None
    assert worker_online(serve(200, {"unexpected": 1}), "edgeloop", "runner") is not None
