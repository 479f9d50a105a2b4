"""Which version a broker speaks is what it answered, not how it died."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from edgeloop.clients import broker_connect
from edgeloop.clients.broker_types import BrokerUnavailable
from edgeloop.clients.broker_url import parse_url

VERSION = 8
"""Where a CONNECT without a name says its version."""
Listen = Callable[[Callable[[socket.socket, bytes], None]], str]


@pytest.fixture
def listen() -> Iterator[Listen]:
    """Start a server that gives each connection and its first bytes to a script; returns its URL."""
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(script: Callable[[socket.socket, bytes], None]) -> str:
        def serve() -> None:
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                with link:
                    script(link, link.recv(64))

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return f"mqtt://127.0.0.1:{server.getsockname()[1]}"

    yield start
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in threads:
        thread.join(10)


def reset(link: socket.socket, _: bytes) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close(link: socket.socket, _: bytes) -> None:
    link.shutdown(socket.SHUT_WR)


def version5(link: socket.socket, asked: bytes) -> None:
    assert asked[VERSION] == 5
    link.sendall(b"\x20\x03\x00\x00\x00")


def refuses_politely(link: socket.socket, asked: bytes) -> None:
    assert asked[VERSION] == 5
    link.sendall(b"\x20\x02\x00\x01")


def refuses_by_hanging_up(link: socket.socket, asked: bytes) -> None:
    if asked[VERSION] == 4:
        link.sendall(b"\x20\x02\x00\x00")


def speaks_something_else(link: socket.socket, _: bytes) -> None:
    link.sendall(b"SSH-2.0-server\r\n")


@pytest.mark.parametrize("script", [reset, close, speaks_something_else])
def test_a_broker_that_dies_while_it_is_asked_is_away(
    listen: Listen, script: Callable[[socket.socket, bytes], None]
) -> None:
    with pytest.raises(BrokerUnavailable, match="closed the connection"):
        broker_connect.connect(listen(script), "node", timeout=30)


@pytest.mark.parametrize(
    ("script", "is_5"), [(version5, True), (refuses_politely, False), (refuses_by_hanging_up, False)]
)
def test_the_answer_says_the_version(
    listen: Listen, script: Callable[[socket.socket, bytes], None], is_5: bool
) -> None:
    assert broker_connect._speaks_mqtt5(parse_url(listen(script)), 5) is is_5


def test_a_broker_that_comes_back_between_two_questions_is_asked_again(listen: Listen) -> None:
    asked: list[int] = []

    def comes_back(link: socket.socket, data: bytes) -> None:
        asked.append(data[VERSION])
        if len(asked) > 1:
            link.sendall(b"\x20\x03\x00\x00\x00" if data[VERSION] == 5 else b"\x20\x02\x00\x00")

    assert broker_connect._speaks_mqtt5(parse_url(listen(comes_back)), 5) is True
    assert asked == [5, 4, 5]
