"""A node's HTTP on real sockets: addresses, and callers that misbehave."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import time
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from edgeloop.edge.http import AddressTaken, UnusableAddress, bind
from edgeloop.edge.http import server as http_server
from tests.unit.edge.asking import PREDICT, MakeWeb, Web
from tests.unit.edge.serving import LOOPS, ROW, ask, serving, until

# --- addresses


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.org:80"])
def test_an_address_that_others_reach_is_refused(address: str) -> None:
    with pytest.raises(UnusableAddress, match=r"in a file: access: access\.yaml") as caught:
        bind(address, access_given=False)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("address", ["", "8081", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", "127.0.0.1:²"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(UnusableAddress, match="write host:port"):
        bind(address, access_given=True)


def test_a_taken_port_is_named() -> None:
    with bind("127.0.0.1:0", access_given=False) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressTaken, match=str(port)):
            bind(f"127.0.0.1:{port}", access_given=False)
    with bind("0.0.0.0:0", access_given=True) as anywhere:
        assert anywhere.getsockname()[1]


# --- callers that misbehave


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_is_kept_and_answers_without_delay(web: Web, loop: Any) -> None:
    with serving(web, loop=loop) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        times = []
        for _ in range(20):
            started = time.perf_counter()
            assert ask(connection, "/healthz")[0] == 200
            times.append(time.perf_counter() - started)
        connection.close()
    assert sorted(times)[2] < 0.03  # with Nagle's algorithm it would be the 40 ms of a delayed ACK


def test_what_is_no_http_gets_an_error_object(web: Web) -> None:
    for sent in (
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ):
        with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(sent)
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 400 ") and b"connection: close" in answer
            assert "send HTTP/1.1" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def test_a_head_without_end_is_refused(web: Web) -> None:
    with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        connection.sendall(b"y" * http_server.HEAD_BYTES)
        answer = read_all(connection)
        assert answer.startswith(b"HTTP/1.1 400 ") and b"over 65536 bytes" in answer


def test_many_requests_on_one_connection_are_no_long_head(web: Web) -> None:
    sent = b"GET /healthz HTTP/1.1\r\nHost: n\r\nx: " + b"y" * 40_000 + b"\r\n\r\n"
    with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(20):
            for at in range(0, len(sent), 1000):
                connection.sendall(sent[at : at + 1000])
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def read_all(connection: socket.socket) -> bytes:
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_a_head_that_does_not_come_is_not_waited_for(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.1)
    with serving(web) as port:
        for sent in (b"", b"GET /hea"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                with suppress(ConnectionError):  # it was cut already
                    connection.sendall(sent)
                assert read_all(connection) == b""


def test_trailers_without_end_are_refused(web: Web) -> None:
    with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        send_until_cut(connection, b"x: " + b"y" * 1000 + b"\r\n")


def test_a_chunk_whose_extension_does_not_end_is_refused(web: Web) -> None:
    with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")
        send_until_cut(connection, b"x" * 1000)


def send_until_cut(connection: socket.socket, more: bytes) -> None:
    """Send up to 8 MB; fails unless the server ends the connection."""
    with pytest.raises(ConnectionError):
        for _ in range(8000):
            connection.sendall(more)


def test_trailers_and_heads_that_are_short_enough_do_not_add_up(web: Web) -> None:
    long = b"x: " + b"y" * 60_000 + b"\r\n"
    head = b"POST /nothing HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n"
    sent = head + long + b"\r\n2\r\nab\r\n0\r\n" + long + b"\r\n"
    with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(20):
            for at in range(0, len(sent), 1000):
                connection.sendall(sent[at : at + 1000])
            assert connection.recv(65536).startswith(b"HTTP/1.1 404 ")


def test_after_a_reply_a_caller_cannot_keep_the_connection_by_sending_no_request(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"POST /nothing HTTP/1.1\r\nHost: n\r\nContent-Length: 1000\r\n\r\n"
    with serving(web) as port:
        get = b"GET /healthz HTTP/1.1\r\nHost: n\r\n\r\n"
        for first, more in ((get, b"\r\n"), (get, b"GET /heal"), (body, b"x"), (body, b"x" * 1000)):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(first)
                assert connection.recv(65536).startswith(b"HTTP/1.1 ")
                with monkeypatch.context() as patched:
                    patched.setattr(http_server, "HEAD_SECONDS", 0.1)
                    connection.sendall(more)
                    assert read_all(connection) == b""


def test_a_request_in_work_is_not_cut_by_the_time_for_heads(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 1.0)
    with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        head = f"\r\nPOST {PREDICT} HTTP/1.1\r\nHost: n\r\nContent-Length: {len(ROW)}\r\n\r\n".encode()
        connection.sendall(head)
        for at in range(0, len(ROW), 4):
            connection.sendall(ROW[at : at + 4])
            time.sleep(0.2)  # slower in all than a head may be
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("loop", LOOPS)
def test_connections_over_the_most_are_ended(web: Web, monkeypatch: pytest.MonkeyPatch, loop: Any) -> None:
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 4)
    with serving(web, loop=loop) as port, ExitStack() as held:
        kept = [http.client.HTTPConnection("127.0.0.1", port, timeout=10) for _ in range(4)]
        for connection in kept:
            held.callback(connection.close)
            assert ask(connection, "/healthz")[0] == 200
        with socket.create_connection(("127.0.0.1", port), timeout=10) as over:
            assert read_all(over) == b""
        assert web.site.work.refused == {"connections": 1}
        assert [ask(connection, "/healthz")[0] for connection in kept] == [200] * 4
        kept[0].close()
        until(lambda: is_served(port))


def is_served(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with suppress(ConnectionError, http.client.HTTPException), closing(connection):
        return bool(ask(connection, "/healthz")[0] == 200)
    return False


@pytest.mark.parametrize(("files", "most"), [(1024, 512), (1 << 20, 512), (resource.RLIM_INFINITY, 512), (200, 100)])
def test_connections_leave_half_of_the_open_files_to_the_node(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (files, resource.RLIM_INFINITY))
    assert http_server.most_connections() == most


def test_a_body_that_does_not_come_is_not_waited_for(webs: MakeWeb) -> None:
    web = webs(body_seconds=0.1)
    with serving(web) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: n\r\nContent-Length: 100\r\n\r\nhalf".encode())
        assert b" 408 " in connection.recv(65536)
        assert web.site.work._held == 0 and web.site.work.refused == {"too_slow": 1}


def test_a_caller_that_asks_first_is_told_before_it_sends(webs: MakeWeb) -> None:
    web = webs(max_body=1000)
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: n\r\nExpect: 100-continue\r\nContent-Length: "
    with serving(web) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"{head}1001\r\n\r\n".encode())
            answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 413 ") and b"connection: close" in answer
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"{head}{len(ROW)}\r\n\r\n".encode())
            assert connection.recv(25).startswith(b"HTTP/1.1 100 ")
            connection.sendall(ROW)
            assert b" 200 OK" in connection.recv(65536)


def test_after_an_oversized_body_the_connection_goes_on(webs: MakeWeb) -> None:
    web = webs(max_body=100_000)
    with serving(web) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        assert ask(connection, PREDICT, b" " * 3_000_000)[0] == 413
        assert ask(connection, PREDICT, ROW)[0] == 200
        connection.close()


def test_a_caller_that_hangs_up_leaves_nothing_behind(web: Web) -> None:
    with serving(web) as port:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: n\r\nContent-Length: 100\r\n\r\nhalf".encode())
        connection_ = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        assert ask(connection_, PREDICT, ROW)[0] == 200
        connection_.close()
        until(lambda: web.site.work._held == 0)
    assert web.site.work.in_work == 0
