"""The same cases on every broker edgeloop may meet: in memory, mosquitto (MQTT 5) and amqtt (3.1.1 only)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from edgeloop.clients import broker as clients
from edgeloop.clients.broker import Ack, BrokerUnavailable, MemoryHub, Message
from tests.servers.amqtt import Amqtt
from tests.servers.mosquitto import Mosquitto
from tests.servers.ports import free_port

pytestmark = pytest.mark.timeout(180)


class Site:
    """One broker under test and the clients made on it."""

    def __init__(self, name: str, connect: Callable[..., Any]) -> None:
        self.name = name
        self.version5 = name != "amqtt"
        self._connect = connect
        self._clients: list[Any] = []

    def connect(self, client_id: str, **options: Any) -> Any:
        client = self._connect(client_id, **options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(params=["memory", "mosquitto", "amqtt"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "memory":
        yield Site("memory", MemoryHub().connect)
        return
    server: Any = Mosquitto(tmp_path / "mosquitto") if request.param == "mosquitto" else Amqtt()
    if request.param == "mosquitto":
        server.start()
    url = f"mqtt://127.0.0.1:{server.port}"
    place = Site(request.param, lambda client_id, **options: clients.connect(url, client_id, **options))
    try:
        yield place
    finally:
        place.close()
        server.stop()


class Inbox:
    """A handler that keeps what came; it acknowledges at once unless told not to."""

    def __init__(self, acknowledge: bool = True) -> None:
        self._queue: SimpleQueue[tuple[Message, Ack]] = SimpleQueue()
        self._acknowledge = acknowledge

    def __call__(self, message: Message, ack: Ack) -> None:
        if self._acknowledge:
            ack()
        self._queue.put((message, ack))

    def next(self, timeout: float = 10) -> tuple[Message, Ack]:
        return self._queue.get(timeout=timeout)

    def payloads(self, count: int) -> list[bytes]:
        return [self.next()[0].payload for _ in range(count)]

    def is_quiet(self) -> bool:
        try:
            self.next(0.3)
        except Empty:
            return True
        return False


def test_a_message_reaches_the_matching_handler_only(site: Site) -> None:
    inbox, other = Inbox(), Inbox()
    listener = site.connect("listener")
    listener.subscribe("a/+/input", inbox)
    listener.subscribe("b/#", other)
    site.connect("talker").publish("a/x/input", b"\x00payload")
    message, _ = inbox.next()
    assert (message.topic, message.payload, message.retain) == ("a/x/input", b"\x00payload", False)
    assert other.is_quiet()


def test_properties_and_correlation_travel_where_mqtt_5_is_spoken(site: Site) -> None:
    inbox = Inbox()
    site.connect("listener").subscribe("a", inbox)
    site.connect("talker").publish("a", b"", properties={"captured-at": "7"}, correlation=b"c1")
    message, _ = inbox.next()
    expected = ({"captured-at": "7"}, b"c1") if site.version5 else ({}, None)
    assert (dict(message.properties), message.correlation) == expected


def test_retained_messages_are_collected_once_each_and_can_be_forgotten(site: Site) -> None:
    talker = site.connect("talker")
    for number in range(5):
        talker.publish(f"r/{number}", b"old", retain=True)
        talker.publish(f"r/{number}", b"%d" % number, retain=True)
    talker.publish("r/0", b"", retain=True)
    found = site.connect("listener").collect_retained("r/+")
    assert {m.topic: m.payload for m in found} == {f"r/{n}": b"%d" % n for n in range(1, 5)}
    assert site.connect("again").collect_retained("nothing/+") == []


def test_what_is_not_acknowledged_comes_again_in_the_same_session(site: Site) -> None:
    if site.name == "amqtt":
        pytest.skip("amqtt forgets what was in flight when a connection ends")
    first = Inbox(acknowledge=False)
    listener = site.connect("keeper", clean=False, subscriptions={"s": first})
    talker = site.connect("talker")
    for number in range(4):
        talker.publish("s", b"%d" % number)
    taken = [first.next() for _ in range(4)]
    taken[0][1]()
    listener.close()
    again = Inbox()
    site.connect("keeper", clean=False, subscriptions={"s": again})
    assert again.payloads(3) == [b"1", b"2", b"3"]
    assert again.is_quiet()


def test_acknowledging_late_and_out_of_order_from_a_thread_is_enough(site: Site) -> None:
    first = Inbox(acknowledge=False)
    listener = site.connect("keeper", clean=False, subscriptions={"s": first})
    talker = site.connect("talker")
    for number in range(3):
        talker.publish("s", b"%d" % number)
    acks = [first.next()[1] for _ in range(3)]
    worker = threading.Thread(target=lambda: [ack() for ack in reversed(acks)])
    worker.start()
    worker.join()
    # The acknowledgements leave before this, on the same connection.
    listener.publish("other", b"")
    listener.close()
    again = Inbox()
    site.connect("keeper", clean=False, subscriptions={"s": again})
    assert again.is_quiet()


def _cut_while_in_work(site: Site, inbox: Inbox) -> tuple[Any, Ack]:
    back = SimpleQueue[None]()
    listener = site.connect("keeper", clean=False, subscriptions={"s": inbox}, on_connect=lambda: back.put(None))
    back.get(timeout=30)
    site.connect("talker").publish("s", b"1")
    _, ack = inbox.next()
    listener.drop()
    back.get(timeout=30)
    return listener, ack


def test_what_is_in_work_while_the_link_is_cut_is_not_handed_out_again(site: Site) -> None:
    if site.name == "amqtt":
        pytest.skip("amqtt forgets what was in flight when a connection ends")
    inbox = Inbox(acknowledge=False)
    listener, _ = _cut_while_in_work(site, inbox)
    assert inbox.is_quiet()
    listener.close()
    again = Inbox()
    site.connect("keeper", clean=False, subscriptions={"s": again})
    assert again.payloads(1) == [b"1"]


def test_an_acknowledgement_counts_over_a_cut_link(site: Site) -> None:
    if site.name == "amqtt":
        pytest.skip("amqtt forgets what was in flight when a connection ends")
    inbox = Inbox(acknowledge=False)
    listener, ack = _cut_while_in_work(site, inbox)
    ack()
    site.connect("other").publish("s", b"2")
    assert inbox.next()[0].payload == b"2"
    listener.publish("t", b"")  # what was acknowledged has left before
    listener.close()
    again = Inbox()
    site.connect("keeper", clean=False, subscriptions={"s": again})
    assert again.payloads(1) == [b"2"]
    assert again.is_quiet()


def test_what_a_handler_failed_on_comes_again_with_the_next_connection(site: Site) -> None:
    if site.name == "amqtt":
        pytest.skip("amqtt forgets what was in flight when a connection ends")
    inbox, back = Inbox(acknowledge=False), SimpleQueue[None]()
    failures = [RuntimeError("the first time only")]

    def fail_once(message: Message, ack: Ack) -> None:
        if message.payload == b"fails" and failures:
            raise failures.pop()
        inbox(message, ack)

    client = site.connect("keeper", clean=False, subscriptions={"s": fail_once}, on_connect=lambda: back.put(None))
    back.get(timeout=30)
    talker = site.connect("talker")
    for payload in (b"in work", b"fails", b"after"):
        talker.publish("s", payload)
    assert inbox.payloads(2) == [b"in work", b"after"]
    client.drop()
    assert inbox.next()[0].payload == b"fails"


def test_no_more_than_the_receive_maximum_is_unacknowledged(site: Site) -> None:
    if not site.version5:
        pytest.skip("a receive maximum needs MQTT 5")
    inbox = Inbox(acknowledge=False)
    site.connect("slow", receive_maximum=3).subscribe("s", inbox)
    talker = site.connect("talker")
    for number in range(5):
        talker.publish("s", b"%d" % number)
    held = [inbox.next() for _ in range(3)]
    assert inbox.is_quiet()
    held[0][1]()
    assert inbox.next()[0].payload == b"3"


def test_a_cut_link_publishes_the_will_and_comes_back_subscribed(site: Site) -> None:
    wills, inbox, back = Inbox(), Inbox(), SimpleQueue[None]()
    site.connect("watcher").subscribe("will", wills)
    will = Message("will", b"gone", retain=True)
    client = site.connect("fragile", will=will, on_connect=lambda: back.put(None))
    back.get(timeout=30)
    client.subscribe("s", inbox)
    client.drop()
    assert wills.next()[0].payload == b"gone"
    back.get(timeout=30)
    # Retained, so it does not matter whether the subscription is renewed before or after.
    site.connect("talker").publish("s", b"hello", retain=True)
    assert inbox.next()[0].payload == b"hello"


def test_a_close_publishes_no_will(site: Site) -> None:
    wills = Inbox()
    site.connect("watcher").subscribe("will", wills)
    site.connect("polite", will=Message("will", b"gone")).close()
    assert wills.is_quiet()


def test_a_shared_subscription_gives_each_message_to_one_member(site: Site) -> None:
    if site.name == "amqtt":
        pytest.skip("amqtt has no shared subscriptions")
    one, two = Inbox(), Inbox()
    site.connect("one").subscribe("$share/g/s/+", one)
    site.connect("two").subscribe("$share/g/s/+", two)
    talker = site.connect("talker")
    for number in range(6):
        talker.publish(f"s/{number}", b"")
    got = sorted([one.next()[0].topic for _ in range(3)] + [two.next()[0].topic for _ in range(3)])
    assert got == [f"s/{n}" for n in range(6)]
    assert one.is_quiet() and two.is_quiet()


def test_an_unsubscribed_filter_is_quiet(site: Site) -> None:
    inbox = Inbox()
    listener = site.connect("listener")
    listener.subscribe("s", inbox)
    listener.unsubscribe("s")
    site.connect("talker").publish("s", b"")
    assert inbox.is_quiet()


def test_publishing_without_waiting_tells_when_it_is_acknowledged(site: Site) -> None:
    futures = [site.connect(f"t{n}").publish_nowait("s", b"x" * 1000) for n in range(3)]
    assert [f.result(30) for f in futures] == [None] * 3


def test_a_closed_connection_says_so(site: Site) -> None:
    client = site.connect("c")
    client.check()
    client.close()
    with pytest.raises(BrokerUnavailable):
        client.check()
    with pytest.raises(BrokerUnavailable):
        client.publish("s", b"", timeout=1)


def test_the_client_comes_back_to_a_killed_broker(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m") as server:
        inbox, back = Inbox(), SimpleQueue[None]()
        client = clients.connect(server.url, "c", subscriptions={"s": inbox}, on_connect=lambda: back.put(None))
        back.get(timeout=30)
        server.kill()
        waiting = client.publish_nowait("t", b"kept until the broker is back")
        server.start()
        back.get(timeout=30)
        waiting.result(30)
        client.publish("s", b"hello", retain=True)
        assert inbox.next()[0].payload == b"hello"
        client.close()


def test_an_absent_broker_is_named_with_the_next_step() -> None:
    port = free_port()
    with pytest.raises(BrokerUnavailable, match=rf"127\.0\.0\.1:{port} does not answer .*EDGELOOP_BROKER"):
        clients.connect(f"mqtt://127.0.0.1:{port}", "c")


def test_a_server_that_is_no_broker_is_named(tmp_path: Path) -> None:
    import socketserver

    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(BrokerUnavailable, match="closed the connection"):
            clients.connect(f"mqtt://127.0.0.1:{server.server_address[1]}", "c", timeout=30)
        server.shutdown()
