"""The proxies that make a link fail: what passes, passes whole, and each fault does what it is called."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.edge_faults.damage import flip, flip_on_the_way, truncate_on_the_way
from tests.e2e.edge_faults.proxies import LinkProxy, ProxyLoop, StoreProxy
from tests.servers.ports import wait_until

BODY = bytes(range(256)) * 40


class _Objects(BaseHTTPRequestHandler):
    """Keeps what is put, by path."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, bytes]
    hosts: list[str]

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        body = self.kept.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def do_PUT(self) -> None:
        wanted = int(self.headers["Content-Length"])
        body = self.rfile.read(wanted)
        if len(body) == wanted:
            self.kept[self.path] = body
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Store:
    """A server, the proxy before it, and requests through the proxy."""

    def __init__(self, loop: ProxyLoop) -> None:
        self.kept: dict[str, bytes] = {}
        self.hosts: list[str] = []
        handler = type("Handler", (_Objects,), {"kept": self.kept, "hosts": self.hosts})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()
        self.proxy = StoreProxy(loop, self.server.server_address[1])

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        link = http.client.HTTPConnection("127.0.0.1", self.proxy.port, timeout=10)
        try:
            link.request(method, path, body)
            answer = link.getresponse()
            return answer.status, answer.read()
        finally:
            link.close()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join(10)
        self.server.server_close()


@pytest.fixture
def loop() -> Iterator[ProxyLoop]:
    made = ProxyLoop()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def store(loop: ProxyLoop) -> Iterator[Store]:
    made = Store(loop)
    try:
        yield made
    finally:
        made.close()


def test_what_passes_is_whole_and_names_the_host_that_was_asked(store: Store) -> None:
    assert store.ask("PUT", "/b/blobs/x", BODY)[0] == 200
    assert store.ask("GET", "/b/blobs/x") == (200, BODY)
    assert store.ask("GET", "/b/none")[0] == 404
    assert set(store.hosts) == {f"127.0.0.1:{store.proxy.port}"}
    assert not store.proxy.hits


def test_a_refusal_reaches_nobody_behind_it(store: Store) -> None:
    store.proxy.refuse = 503
    assert store.ask("PUT", "/b/x", BODY)[0] == 503
    store.proxy.refuse = None
    assert store.ask("GET", "/b/x")[0] == 404
    assert store.proxy.hits == {"refuse": 1}


def test_a_request_that_is_cut_leaves_nothing_and_one_that_is_not_answered_is_done(store: Store) -> None:
    for cut, done in (("request", False), ("before-answer", True)):
        store.proxy.cut = cut  # type: ignore[assignment]
        with pytest.raises((http.client.HTTPException, OSError)):
            store.ask("PUT", f"/b/{cut}", BODY)
        store.proxy.cut = None
        assert store.ask("GET", f"/b/{cut}")[0] == (200 if done else 404)


def test_an_answer_that_is_cut_is_seen_to_be_short(store: Store) -> None:
    store.kept["/b/x"] = BODY
    store.proxy.cut = "answer"
    with pytest.raises(http.client.IncompleteRead):
        store.ask("GET", "/b/x")


def test_damage_looks_complete_and_strikes_blobs_only(store: Store) -> None:
    store.kept |= {"/b/blobs/x": BODY, "/b/captures/x": BODY}
    store.proxy.damage = flip_on_the_way
    assert store.ask("GET", "/b/blobs/x") == (200, flip(BODY))
    store.proxy.damage = truncate_on_the_way
    assert store.ask("GET", "/b/blobs/x") == (200, BODY[: len(BODY) // 2])
    assert store.ask("GET", "/b/captures/x") == (200, BODY)
    assert store.proxy.hits == {"damage": 2}
    assert sum(a != b for a, b in zip(flip(BODY), BODY, strict=True)) == 1


def test_a_store_that_is_down_answers_nobody(store: Store) -> None:
    store.proxy.down = True
    with pytest.raises((http.client.HTTPException, OSError)):
        store.ask("GET", "/b/x")
    store.proxy.down = False
    assert store.ask("GET", "/b/x")[0] == 404


def test_a_link_passes_bytes_both_ways_until_it_is_cut(loop: ProxyLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = LinkProxy(loop, server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as near:
            far, _ = server.accept()
            with far:
                near.sendall(b"to")
                assert far.recv(10) == b"to"
                far.sendall(b"fro")
                assert near.recv(10) == b"fro"
                assert proxy.cut() == 2
                for end in (near, far):
                    end.settimeout(10)
                    with pytest.raises(ConnectionResetError):
                        assert end.recv(10) == b"" and _raise()
        wait_until("no ends left", lambda: proxy.cut() == 0)


def _raise() -> bool:
    """An end that was closed in good order is as dead as one that was reset."""
    raise ConnectionResetError
