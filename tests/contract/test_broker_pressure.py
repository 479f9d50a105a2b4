"""A client under pressure on a real mosquitto: hostile messages, busy handlers, many reconnects at once."""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.clients import broker_connect, broker_paho
from edgeloop.clients.broker import Ack, BrokerRefused, Message, connect
from edgeloop.clients.broker_loop import FIRST_SECONDS, LONGEST_SECONDS, reconnect_wait
from tests.servers.mosquitto import Mosquitto
from tests.servers.ports import wait_until

pytestmark = pytest.mark.timeout(180)

KB30 = b"x" * 30_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "m") as made:
        yield made


def publish_raw(server: Mosquitto, topic: str, payload: bytes, **properties: Any) -> None:
    """Publish with properties that no client of ours sends."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "hostile", protocol=mqtt.MQTTv5)
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in properties.items():
        setattr(made, name, value)
    client.publish(topic, payload, 1, properties=made).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


@pytest.mark.parametrize(
    "properties",
    [
        {"UserProperty": [("captured-at", "\ufeff7")]},
        {"UserProperty": [("\ufeff", "")] * 50},
        {"ResponseTopic": "\ufeff"},
        {"ContentType": "\ufeff"},
        {"CorrelationData": b"\xff" * 60_000},
    ],
)
def test_no_property_of_a_message_cuts_the_connection(server: Mosquitto, properties: dict[str, Any]) -> None:
    inbox, connected = SimpleQueue[Message](), list[None]()

    def take(message: Message, ack: Ack) -> None:
        ack()
        inbox.put(message)

    client = connect(server.url, "c", clean=False, subscriptions={"t": take}, on_connect=lambda: connected.append(None))
    publish_raw(server, "t", b"x", **properties)
    assert inbox.get(timeout=30).payload == b"x"
    client.publish("t", b"y")
    assert inbox.get(timeout=30).payload == b"y"
    client.close()
    assert len(connected) == 1


@pytest.mark.parametrize("sent", [{"properties": {"k": "\ufffd" * 30_000}}, {"correlation": b"c" * 65_536}])
@pytest.mark.parametrize("options", [[], ["max_packet_size 1000000"]])
def test_a_property_over_its_size_is_refused_and_the_connection_stands(
    tmp_path: Path, sent: dict[str, Any], options: list[str]
) -> None:
    with Mosquitto(tmp_path / "m", options=options) as server:
        client = connect(server.url, "c")
        with pytest.raises(BrokerRefused, match=r"a property of \d+ bytes, and it may have 65535"):
            client.publish("t", b"x", **sent)
        client.publish("t", b"x", properties={"k": "x" * 65_535}, correlation=b"c" * 65_535)
        client.close()


def test_a_topic_with_a_byte_order_mark_arrives(server: Mosquitto) -> None:
    inbox: SimpleQueue[Message] = SimpleQueue()

    def take(message: Message, ack: Ack) -> None:
        ack()
        inbox.put(message)

    client = connect(server.url, "c", subscriptions={"t/+": take})
    client.publish("t/\ufeff", b"x")
    assert inbox.get(timeout=30).topic == "t/\ufeff"
    client.close()


class Slow:
    """A handler whose work is done when the test says so; busy while ``limit`` are in work."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_work: SimpleQueue[tuple[Message, Ack]] = SimpleQueue()
        self.most = self.total = 0

    def __call__(self, message: Message, ack: Ack) -> None:
        self.in_work.put((message, ack))
        self.total += 1
        self.most = max(self.most, self.in_work.qsize())

    def busy(self) -> bool:
        return self.in_work.qsize() >= self.limit

    def finish_one(self) -> Message:
        message, ack = self.in_work.get(timeout=30)
        ack()
        return message


@pytest.mark.parametrize(("version5", "qos"), [(True, 0), (False, 1)])
def test_a_busy_client_reads_no_further_and_stays_connected(
    server: Mosquitto, monkeypatch: pytest.MonkeyPatch, version5: bool, qos: int
) -> None:
    monkeypatch.setattr(broker_connect, "_speaks_mqtt5", lambda address, timeout: version5)
    monkeypatch.setattr(broker_paho, "_KEEPALIVE", 1)
    slow, wills = Slow(8), SimpleQueue[Message]()
    watcher = connect(server.url, "watcher", subscriptions={"will": lambda message, _ack: wills.put(message)})
    client = connect(
        server.url,
        "busy",
        will=Message("will", b"gone"),
        clean=False,
        receive_maximum=1000,
        subscriptions={"s": slow},
        busy=slow.busy,
    )
    publish_many(server, 200, qos)
    wait_until("the client is busy", slow.busy)
    cpu = time.process_time()
    with pytest.raises(Empty):  # longer than either side waits for a sign of life, with mosquitto's own checks
        wills.get(timeout=7)
    assert time.process_time() - cpu < 1.5  # it waits, it does not spin
    assert slow.total <= 8 + 1
    count = 200 if qos else slow.total
    for number in range(count):
        assert struct.unpack(">I", slow.finish_one().payload[:4])[0] == number
    assert slow.most <= 8 + 1 and client.connected
    client.close()
    watcher.close()


def publish_many(server: Mosquitto, count: int, qos: int) -> None:
    talker = connect(server.url, "talker")
    futures = [talker.publish_nowait("s", struct.pack(">I", n) + KB30, qos=qos) for n in range(count)]
    for future in futures:
        future.result(20)
    talker.close()


def test_a_lost_broker_gives_back_what_was_not_acknowledged_and_nothing_twice(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m", persistent=True) as server:
        slow, back = Slow(1000), SimpleQueue[None]()
        client = connect(
            server.url,
            "c",
            clean=False,
            receive_maximum=20,
            subscriptions={"s": slow},
            on_connect=lambda: back.put(None),
        )
        back.get(timeout=30)
        publish_many(server, 30, 1)
        wait_until("the first are in work", lambda: slow.total == 20)
        server.stop()  # in good order: it writes down the session
        server.start()
        back.get(timeout=40)
        numbers = [struct.unpack(">I", slow.finish_one().payload[:4])[0] for _ in range(30)]
        assert numbers == list(range(30)) and slow.total == 30
        client.close()


def test_publishing_from_many_threads_loses_nothing(server: Mosquitto) -> None:
    inbox: SimpleQueue[bytes] = SimpleQueue()

    def take(message: Message, ack: Ack) -> None:
        ack()
        inbox.put(message.payload)

    client = connect(server.url, "c", subscriptions={"t": take})
    acknowledged: SimpleQueue[Exception | None] = SimpleQueue()

    def work(who: int) -> None:
        for number in range(300):
            client.publish_then("t", b"%d %d" % (who, number), acknowledged.put)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [acknowledged.get(timeout=30) for _ in range(1200)] == [None] * 1200
    assert {inbox.get(timeout=30) for _ in range(1200)} == {b"%d %d" % (w, n) for w in range(4) for n in range(300)}
    client.close()


@given(st.integers(0, 10_000))
def test_a_reconnect_waits_at_most_its_bound(failures: int) -> None:
    assert 0 < reconnect_wait(failures) <= min(FIRST_SECONDS * 2.0 ** min(failures, 16), LONGEST_SECONDS)


@pytest.mark.parametrize(("failures", "bound"), [(0, FIRST_SECONDS), (20, LONGEST_SECONDS)])
def test_ten_thousand_nodes_come_back_spread_over_the_whole_bound(failures: int, bound: float) -> None:
    waits = [reconnect_wait(failures) for _ in range(10_000)]
    slots = [0] * 10
    for wait in waits:
        slots[min(9, int(wait / bound * 10))] += 1
    assert max(slots) < 1200 and min(slots) > 700


def test_closing_gives_up_on_a_broker_that_takes_nothing(server: Mosquitto) -> None:
    client: Any = connect(server.url, "c")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for _ in range(20):
            client.publish_nowait("t", b"x" * 2_000_000)
        closing = _timed(client.close)
        assert not client._loop._thread.is_alive()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert 1 < closing < 8  # it tried, and then it stopped


def test_closing_while_it_connects_anew_leaves_no_will(server: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    told, connecting, closed = SimpleQueue[bytes](), threading.Event(), threading.Event()

    def take(message: Message, ack: Ack) -> None:
        ack()
        told.put(message.payload)

    watcher = connect(server.url, "watcher", subscriptions={"t": take})
    client: Any = connect(server.url, "c", will=Message("t", b"the will"))
    real, disconnect = client._client._create_socket, client._client.disconnect

    def create() -> Any:
        connecting.set()
        assert closed.wait(30)
        return real()

    def say() -> Any:
        said = disconnect()
        closed.set()
        return said

    monkeypatch.setattr(client._client, "_create_socket", create)
    monkeypatch.setattr(client._client, "disconnect", say)
    client.drop()
    assert told.get(timeout=30) == b"the will", "of the connection that was cut"
    assert connecting.wait(30)
    client.close()
    watcher.publish("t", b"the end")
    assert told.get(timeout=30) == b"the end"
    watcher.close()


def _timed(work: Callable[[], None]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
