"""What no real broker can be brought to do on demand: the test is the broker, and writes its packets."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from edgeloop.clients import broker_connect, broker_loop
from edgeloop.clients.broker import Ack, BrokerRefused, BrokerUnavailable, Message, connect
from edgeloop.clients.broker_paho import PahoBroker

pytestmark = pytest.mark.timeout(180)

CONNECT, PUBLISH, PUBACK, SUBSCRIBE, DISCONNECT = 0x10, 0x30, 0x40, 0x80, 0xE0
_FORBIDDEN = 0x87


class Link:
    """The broker's end of one connection, MQTT 5."""

    def __init__(self, link: socket.socket) -> None:
        link.settimeout(30)
        self._link = link
        self._stream = link.makefile("rb")

    def read(self, kind: int) -> bytes:
        """What follows the fixed header of the next packet, which must be of this kind."""
        first, size, shift = self._byte(), 0, 0
        while (byte := self._byte()) & 128:
            size, shift = size | (byte & 127) << shift, shift + 7
        size |= byte << shift
        assert first & 0xF0 == kind, f"{first:#x}"
        return self._stream.read(size)

    def _byte(self) -> int:
        (byte,) = self._stream.read(1)
        return int(byte)

    def connack(self, *, kept: bool) -> None:
        self.read(CONNECT)
        self._link.sendall(bytes([0x20, 3, kept, 0, 0]))

    def suback(self, code: int = 1) -> None:
        mid = self.read(SUBSCRIBE)[:2]
        self._link.sendall(b"\x90\x04" + mid + bytes([0, code]))

    def publish(self, mid: int, payload: bytes, *, again: bool = False, properties: bytes = b"") -> None:
        body = b"\0\1s" + struct.pack(">H", mid) + bytes([len(properties)]) + properties + payload
        self._link.sendall(bytes([PUBLISH | 2 | 8 * again, len(body)]) + body)

    def acked(self) -> int:
        """The number of the message that is acknowledged next."""
        return int.from_bytes(self.read(PUBACK)[:2])

    def cut(self) -> None:
        self._stream.close()
        self._link.close()

    def is_cut(self) -> bool:
        """Whether the client hangs up without a word."""
        return self._stream.read(1) == b""


class Scripted:
    """A broker and the clients on it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._server.settimeout(30)
        self._pool = stack.enter_context(ThreadPoolExecutor(4))
        self.got: SimpleQueue[tuple[bytes, Ack]] = SimpleQueue()

    def connect(self, **options: Any) -> Future[Any]:
        url = f"mqtt://127.0.0.1:{self._server.getsockname()[1]}"
        options = dict[str, Any](subscriptions={"s": self.take}, clean=False, timeout=30) | options

        def run() -> Any:
            client = connect(url, "c", **options)
            self._stack.callback(client.close)
            return client

        return self.run(run)

    def run(self, work: Callable[[], Any]) -> Future[Any]:
        """Beside the test, which is the broker meanwhile."""
        return self._pool.submit(work)

    def take(self, message: Message, ack: Ack) -> None:
        self.got.put((message.payload, ack))

    def accept(self, *, kept: bool) -> Link:
        """The next connection, answered; ``kept``: with the session of the last."""
        link = Link(self._server.accept()[0])
        self._stack.callback(link.cut)
        link.connack(kept=kept)
        return link

    def next(self) -> bytes:
        """Payload of the next message that is handed out, which is acknowledged at once."""
        payload, ack = self.got.get(timeout=30)
        ack()
        return payload

    def is_quiet(self) -> bool:
        try:
            self.got.get(timeout=0.2)
        except Empty:
            return True
        return False


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(broker_connect, "_speaks_mqtt5", lambda address, timeout: True)
    monkeypatch.setattr(broker_loop, "FIRST_SECONDS", 0.1)
    with ExitStack() as stack:
        yield Scripted(stack)


@pytest.fixture
def standing(broker: Scripted) -> Link:
    """A client's first connection."""
    made = broker.connect()
    link = broker.accept(kept=False)
    link.suback()
    made.result(30)
    return link


def again(broker: Scripted, *, kept: bool = True) -> Link:
    link = broker.accept(kept=kept)
    link.suback()
    return link


def test_a_message_whose_acknowledgement_was_lost_is_acknowledged_again_and_not_handed_out(
    broker: Scripted, standing: Link
) -> None:
    standing.publish(1, b"one")
    assert broker.next() == b"one"
    standing.cut()
    for _ in range(2):  # and once more, should that one be lost too
        link = again(broker)
        link.publish(1, b"one", again=True)
        assert link.acked() == 1
        link.cut()
    assert broker.is_quiet()


@pytest.mark.parametrize(
    ("payload", "properties", "again_", "kept"),
    [
        (b"two", b"", True, True),
        (b"one", b"\x26\0\1k\0\1v", True, True),
        (b"one", b"\x09\0\1c", True, True),
        (b"one", b"\x08\0\1t", True, True),
        (b"one", b"", False, True),
        (b"one", b"", True, False),
    ],
    ids=["payload", "property", "correlation", "response topic", "no repetition", "new session"],
)
def test_another_message_under_a_number_that_was_used_before_is_handed_out(
    broker: Scripted, standing: Link, payload: bytes, properties: bytes, again_: bool, kept: bool
) -> None:
    standing.publish(1, b"one")
    assert broker.next() == b"one"
    standing.cut()
    link = again(broker, kept=kept)
    link.publish(1, payload, again=again_, properties=properties)
    assert broker.next() == payload
    assert link.acked() == 1


def test_the_time_a_message_has_left_does_not_make_it_another(broker: Scripted, standing: Link) -> None:
    standing.publish(1, b"one", properties=b"\x02\0\0\0\x09")
    assert broker.next() == b"one"
    standing.cut()
    link = again(broker)
    link.publish(1, b"one", again=True, properties=b"\x02\0\0\0\x08")
    assert link.acked() == 1
    assert broker.is_quiet()


def _breaks(link: Link) -> None:
    link.read(SUBSCRIBE)
    link.cut()


def _refuses(link: Link) -> None:
    link.suback(_FORBIDDEN)


def _says_nothing(link: Link) -> None:
    link.read(SUBSCRIBE)


@pytest.mark.parametrize(
    ("fail", "error"), [(_breaks, BrokerUnavailable), (_refuses, BrokerRefused), (_says_nothing, BrokerUnavailable)]
)
def test_what_came_to_a_first_connection_that_failed_is_handed_out_by_the_next_only(
    broker: Scripted, fail: Callable[[Link], None], error: type[Exception]
) -> None:
    failing = broker.connect(timeout=3 if fail is _says_nothing else 30)
    link = broker.accept(kept=True)
    link.publish(1, b"one")
    fail(link)
    with pytest.raises(error):
        failing.result(30)
    assert broker.is_quiet()
    made = broker.connect()
    link = broker.accept(kept=True)
    link.publish(1, b"one", again=True)
    link.publish(2, b"two")
    link.suback()
    made.result(30)
    assert [broker.next(), broker.next()] == [b"one", b"two"]
    assert [link.acked(), link.acked()] == [1, 2]
    assert broker.is_quiet()


def test_a_first_connection_that_broke_is_not_followed_by_another(
    broker: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked may be slow to hear of it: what the network does meanwhile is done without its being closed."""
    close = PahoBroker.close

    def slowly(client: PahoBroker) -> None:
        client._loop._thread.join(1)
        assert not client._loop._thread.is_alive()
        close(client)

    monkeypatch.setattr(PahoBroker, "close", slowly)
    failing = broker.connect()
    _breaks(broker.accept(kept=True))
    with pytest.raises(BrokerUnavailable):
        failing.result(30)
    made = broker.connect()
    broker.accept(kept=True).suback()
    monkeypatch.undo()
    made.result(30)


def test_a_subscription_that_is_refused_on_a_reconnect_is_tried_again_and_not_announced_before(
    broker: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    announced: SimpleQueue[None] = SimpleQueue()
    made = broker.connect(on_connect=lambda: announced.put(None))
    link = broker.accept(kept=False)
    link.suback()
    made.result(30)
    announced.get(timeout=30)
    link.cut()
    refused = broker.accept(kept=True)
    refused.suback(_FORBIDDEN)
    assert refused.is_cut()
    link = broker.accept(kept=True)
    assert announced.empty() and "a subscription was not renewed" in caplog.text
    link.suback()
    announced.get(timeout=30)
    link.publish(1, b"one")
    assert broker.next() == b"one"


def test_a_subscription_that_was_refused_when_it_was_asked_for_is_not_renewed(broker: Scripted) -> None:
    made = broker.connect()
    link = broker.accept(kept=False)
    link.suback()
    asking = broker.run(lambda: made.result(30).subscribe("forbidden", broker.take))
    link.suback(_FORBIDDEN)
    with pytest.raises(BrokerRefused):
        asking.result(30)
    link.cut()
    link = broker.accept(kept=True)
    assert b"forbidden" not in link.read(SUBSCRIBE)


def test_a_client_that_is_closed_before_its_subscriptions_are_renewed_says_nothing(
    broker: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    announced: SimpleQueue[None] = SimpleQueue()
    made = broker.connect(on_connect=lambda: announced.put(None))
    link = broker.accept(kept=False)
    link.suback()
    client = made.result(30)
    announced.get(timeout=30)
    link.cut()
    link = broker.accept(kept=True)
    link.read(SUBSCRIBE)
    client.close()
    assert announced.empty() and not caplog.records
