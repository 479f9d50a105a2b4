"""Hostile bytes on real connections to the real server: split, pipelined, half closed, no HTTP at all.

The seed is printed with a failure; set EDGELOOP_FUZZ_SEED to replay it, EDGELOOP_FUZZ_CONNECTIONS for more of them.
"""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import random
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from edgeloop.edge.allocator import give_back_large_blocks
from edgeloop.edge.http.access import Access, Caller
from edgeloop.edge.once import Once
from tests.unit.edge.asking import PREDICT, MakeWeb, Response, Web
from tests.unit.edge.damaged import EYE, serve_eye
from tests.unit.edge.fakes import SERVICE
from tests.unit.edge.hostile import Asked, Hostile
from tests.unit.edge.serving import ROW, ask, serving, until
from tests.unit.edge.test_access import sha256
from tests.unit.edge.test_http_fuzz import DECLARED, MOST_GROWTH, Steady, resident

SEED = int(os.environ.get("EDGELOOP_FUZZ_SEED", "20263"))
CONNECTIONS = int(os.environ.get("EDGELOOP_FUZZ_CONNECTIONS", "1500"))
#: Longest that any read or write may take.
SECONDS = 10
_LINES = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
_HEADS = [
    b"Transfer-Encoding: chunked",
    b"Content-Length: 5",
    b"Content-Length: -1",
    b"Upgrade: h2c",
    b"Connection: Upgrade",
]
_HEADS += [b"Connection: close", b": no name", b"x" * 9000 + b": 1", b"Expect: 100-continue", b"a: b\r\n folded"]


@pytest.fixture
def web(webs: MakeWeb) -> Web:
    give_back_large_blocks()  # as a node does
    admin = Caller(name="ann", role="admin", token_sha256=sha256("key"))
    made = webs(audit=1e-9, access=Access([admin]), load=lambda _: None, max_body=50_000)
    made.bench.gateway._once = Once(200)
    made.serve(SERVICE, Steady(), made.bench.config, "1")
    serve_eye(made.bench)
    return made


def written(asked: Asked, *more: bytes) -> bytes:
    """The request as it stands on the wire; a length that it names itself is left as wrong as it is."""
    body, names = b"".join(asked.chunks), {name for name, _ in asked.headers}
    lines = [f"{asked.method} {asked.path} HTTP/1.1".encode("utf-8", "replace"), b"host: n"]
    lines += [name + b": " + value for name, value in asked.headers]
    if not names & {b"content-length", b"transfer-encoding"}:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*lines, *more, b"", b""]) + body


class Talk:
    """What one connection sends."""

    def __init__(self, draw: random.Random, hostile: Hostile) -> None:
        self.sound = draw.random() < 0.3
        """Sound requests one behind the other: each must be answered."""
        self.half_closed = not self.sound
        """Then the server has to end; else it is asked to close."""
        self.sent: list[Asked] = []
        for _ in range(draw.choice((1, 1, 2, 3, 8))):
            asked = draw.choice(hostile._good) if self.sound else hostile.next()
            self.sent.append(asked if asked.method != "HEAD" else draw.choice(hostile._good))
        last = (b"connection: close",) if self.sound else ()
        data = b"".join([*map(written, self.sent[:-1]), written(self.sent[-1], *last)])
        self.data = data if self.sound else _spoiled(draw, data)
        size = draw.choice((len(self.data), len(self.data), 1000, 37)) or 1
        self.parts = [self.data[at : at + size] for at in range(0, len(self.data), size)]

    def answers(self, port: int) -> list[Response]:
        """Send it all, and read to the end."""
        received = io.BytesIO()
        with socket.create_connection(("127.0.0.1", port), SECONDS) as link:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for part in self.parts:
                    link.sendall(part)
                if self.half_closed:
                    link.shutdown(socket.SHUT_WR)
                while data := link.recv(65_536):
                    received.write(data)
            except TimeoutError:
                raise
            except OSError:  # it was hung up on, before all was sent
                assert not self.sound
        return _responses(received.getvalue(), whole=self.sound)


def _spoiled(draw: random.Random, data: bytes) -> bytes:
    """The stream with a fault that a sender of sound messages would not make, or noise, or as it is."""
    kind, at = draw.randrange(7), draw.randint(0, len(data))
    if kind == 0:
        return draw.randbytes(draw.choice((1, 50, 3000)))
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + draw.choice(_LINES) + data[at:]
    if kind == 3:
        return data.replace(b"\r\nhost: n", b"\r\nhost: n\r\n" + draw.choice(_HEADS))
    if kind == 4:
        return data.replace(b"\r\n", draw.choice((b"\n", b"\r")), draw.randint(1, 9))
    if kind == 5:
        out = bytearray(data)
        for _ in range(4):
            out[draw.randrange(len(out))] = draw.randrange(256)
        return bytes(out)
    return data


def _responses(data: bytes, *, whole: bool) -> list[Response]:
    """What was answered, one behind the other; an answer may be cut off unless ``whole``."""
    found, rest = list[Response](), data
    while rest:
        assert rest.startswith(b"HTTP/1.1 "), rest[:100]
        head, end, after = rest.partition(b"\r\n\r\n")
        status = int(head[9:12])
        headers = {k.lower(): v for k, _, v in (line.partition(b": ") for line in head.split(b"\r\n")[1:])}
        size = int(headers.get(b"content-length", b"0"))
        if not whole and (not end or len(after) < size):
            break
        assert end and len(after) >= size
        if status != 100:
            found.append(Response(status, headers, after[:size]))
        rest = after[size:]
    return found


def check(talk: Talk, answers: list[Response]) -> None:
    """Raise AssertionError unless these may be the answers."""
    for answer in answers:
        assert answer.status in DECLARED, answer
        if answer.status >= 400 and answer.headers.get(b"content-type") == b"application/json":
            assert isinstance(json.loads(answer.body), dict)
    if talk.sound:
        assert len(answers) == len(talk.sent)
        assert {a.status for a in answers} <= {200, 403, 404}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.alone
def test_nothing_that_is_sent_over_a_socket_does_harm(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    print(f"EDGELOOP_FUZZ_SEED={SEED}")
    caplog.set_level(logging.ERROR)
    draw, hostile, seen, before = random.Random(SEED), Hostile(SEED), Counter[int](), 0
    with serving(web) as port:
        files = open_files()
        for number in range(CONNECTIONS):
            if number == CONNECTIONS // 3:
                before = resident()
            talk = Talk(draw, hostile)
            try:
                answers = talk.answers(port)
                check(talk, answers)
            except Exception as error:
                raise AssertionError(f"connection {number} of seed {SEED} did harm: {talk.data[:2000]!r}") from error
            seen.update(answer.status for answer in answers)
        until(lambda: web.site.work.in_work == 0 and web.site.work._held == 0)
        until(lambda: open_files() <= files)
        grown, threads = resident() - before, threading.active_count()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        assert ask(connection, PREDICT, ROW, Authorization="Bearer key")[0] == 200
        connection.close()
    assert not [r.getMessage() for r in caplog.records]
    assert {200, 400, 401, 404, 405, 413} <= set(seen), seen
    assert web.bench.stats.services[EYE].outcomes["ok"] and web.bench.stats.services[EYE].outcomes["bad_input"]
    assert grown < MOST_GROWTH, f"{grown} bytes more are resident after {CONNECTIONS} connections of seed {SEED}"
    assert threads < 60


def test_who_hangs_up_on_several_requests_leaves_no_error_in_the_log(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: n\r\nAuthorization: Bearer key\r\nContent-Length: {len(ROW)}\r\n\r\n"
    caplog.set_level(logging.ERROR)
    with serving(web) as port:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), SECONDS) as link:
                link.sendall((head.encode() + ROW) * 5)
        until(lambda: web.site.work.in_work == 0 and web.site.work._held == 0)
    assert not [r.getMessage() for r in caplog.records]
