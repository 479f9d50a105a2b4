from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.broker import Ack, BrokerRefused, Done, MemoryBroker, MemoryHub, Message
from edgeloop.edge.mqtt import intake as mqtt
from edgeloop.edge.mqtt.intake import Answers, Intake, answer_topic
from edgeloop.edge.results import Result
from edgeloop.samples.topics import device_topic, parse_device_topic
from tests.servers.ports import wait_until
from tests.unit.edge.fakes import SERVICE, Bench


class Site:
    """An intake on an in-memory broker, with a device."""

    def __init__(self, folder: Path) -> None:
        self.hub = MemoryHub()
        self.bench = Bench(folder)
        self.results: SimpleQueue[Message] = SimpleQueue()
        self.device = self.hub.connect("device")
        self.device.subscribe("edgeloop/v1/+/+/result", self._result)
        self.start()

    def start(self, *, devices: list[str] | None = None, group: str | None = None) -> None:
        self.intake = Intake(self.bench.gateway, 4)
        handlers = self.intake.handlers([SERVICE], devices or ["+"], group)
        self.node: MemoryBroker = self.hub.connect("node", clean=False, subscriptions=handlers)
        self.intake.attach(self.node)

    def _result(self, message: Message, ack: Ack) -> None:
        ack()
        self.results.put(message)

    def send(self, payload: bytes, leaf: str = "input", device: str = "d1", **more: Any) -> None:
        self.device.publish(device_topic(SERVICE, device, leaf), payload, **more)

    def unacknowledged(self) -> int:
        return len(self.node._session.flying)

    def result(self) -> tuple[Message, dict[str, Any]]:
        message = self.results.get(timeout=10)
        return message, json.loads(message.payload)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.intake.stop(60)
    made.bench.close()


def test_a_result_carries_what_the_device_sent_to_know_it_by(site: Site) -> None:
    site.send(b"[0.5,1]", properties={"captured-at": "1767225600000000"}, correlation=b"c7")
    message, result = site.result()
    assert message.topic == f"edgeloop/v1/{SERVICE}/d1/result"
    assert message.properties == {"captured-at": "1767225600000000"} and message.correlation == b"c7"
    assert result["prediction"] == "yes" and result["captured"] and result["device"] == "d1"


def test_an_input_sent_again_gets_the_same_result(site: Site) -> None:
    for _ in range(2):
        site.send(b"[0.5,1]", properties={"captured-at": "1767225600000000"})
    assert site.result()[1] == site.result()[1]
    assert site.bench.spool.samples == 1


@pytest.mark.parametrize(
    ("payload", "properties", "error"),
    [(b"junk", {}, "not JSON"), (b"[0.5,1]", {"captured-at": "noon"}, "captured-at is 'noon'")],
)
def test_a_wrong_input_gets_an_error(site: Site, payload: bytes, properties: dict[str, str], error: str) -> None:
    site.send(payload, properties=properties)
    assert error in site.result()[1]["error"]


def test_feedback_is_kept_silently_and_wrong_feedback_answered(site: Site) -> None:
    site.send(b"[0.5,1]")
    name = site.result()[1]["sample_id"]
    site.send(json.dumps({"sample_id": name, "label": "no"}).encode(), "feedback")
    site.send(json.dumps({"sample_id": name, "label": "maybe"}).encode(), "feedback", correlation=b"c9")
    message, result = site.result()
    assert "send one of yes, no" in result["error"] and result["sample_id"] == name and message.correlation == b"c9"
    site.intake.stop(60)
    assert site.bench.spool.samples == 2 and site.results.empty()
    assert site.unacknowledged() == 0


def test_feedback_for_a_sample_that_is_not_here_is_answered(site: Site) -> None:
    site.send(b'{"sample_id": "%s", "label": "no"}' % (b"ab" * 32), "feedback", correlation=b"c")
    message, result = site.result()
    assert "was not captured here" in result["error"] and message.correlation == b"c"
    assert site.bench.spool.samples == 0


@pytest.mark.parametrize(
    ("device", "payload", "leaf", "error"),
    [
        ("d1", b"", "input", "payload is empty"),
        ("d1", b"", "feedback", "payload is empty"),
        ("d1", b"1" * 8_000_001, "input", "payload has 8000001 bytes and may have 8000000: send a smaller one"),
        ("d1", b"1" * 65_537, "feedback", "payload has 65537 bytes and may have 65536"),
        ("d1", b"\xff\xfe", "input", "not JSON"),
        ("d1", b"[1e999,1]", "input", "send a finite number"),
        ("", b"[0.5,1]", "input", "device name is ''"),
        ("x" * 129, b"[0.5,1]", "input", "use 1 to 128 printable characters"),
        ("a\u202eb", b"[0.5,1]", "input", "use 1 to 128 printable characters"),
    ],
)
def test_what_is_wrong_is_told_to_its_own_device(
    site: Site, device: str, payload: bytes, leaf: str, error: str
) -> None:
    site.send(payload, leaf, device, properties={"captured-at": "7"}, correlation=b"c")
    message, result = site.result()
    assert message.topic == device_topic(SERVICE, device, "result")
    assert message.properties == {"captured-at": "7"} and message.correlation == b"c"
    assert error in result["error"] and "prediction" not in result
    site.send(b"[0.5,1]")
    assert site.result()[1]["captured"]  # nothing else is disturbed
    assert site.intake.stop(60) and site.unacknowledged() == 0


def test_wrong_inputs_are_counted(site: Site) -> None:
    for payload in (b"", b"junk", b"1" * 8_000_001):
        site.send(payload)
        site.result()
    assert site.bench.stats.services[SERVICE].outcomes["bad_input"] == 3


@pytest.mark.parametrize(
    "topic",
    [
        "edgeloop/v1/a/b/c/d", "edgeloop/v1/nodes/d1/input", f"edgeloop/v1/{SERVICE}/d1/feedback", "x", "",
        f"edgeloop/v2/{SERVICE}/d1/input", "edgeloop/v1//d1/result",
    ],
)  # fmt: skip
def test_a_message_of_no_device_is_dropped_and_counted(site: Site, topic: str) -> None:
    acked: list[bool] = []
    (take, *_) = site.intake.handlers([SERVICE], ["+"], None).values()
    take(Message(topic, b"[0.5,1]"), lambda: acked.append(True))
    assert site.intake.stop(60) and acked == [True]
    assert site.intake.ignored["topic"] == 1 and site.results.empty()


def test_an_unknown_service_is_told_so(site: Site) -> None:
    (take, *_) = site.intake.handlers([SERVICE], ["+"], None).values()
    acked: list[bool] = []
    site.device.subscribe("edgeloop/v1/other/+/result", site._result)
    take(Message("edgeloop/v1/other/d1/input", b"[0.5,1]"), lambda: acked.append(True))
    assert "does not serve other" in site.result()[1]["error"]
    assert site.intake.stop(60) and acked == [True]


_OWN = device_topic(SERVICE, "d1", "result")


@pytest.mark.parametrize("wanted", [f"{_OWN}/7", f"{_OWN}/a/b/c", f"{_OWN}/ä"])
def test_an_answer_goes_where_the_device_wants_it_below_its_own_topic(wanted: str) -> None:
    assert answer_topic(SERVICE, "d1", wanted) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        None, "", _OWN, "x", device_topic(SERVICE, "d2", "result"), device_topic("other", "d1", "result/7"),
        device_topic(SERVICE, "d1", "input"), device_topic(SERVICE, "d1", "feedback"), f"{_OWN}x/7",
        f"{_OWN}/#", f"{_OWN}/+", f"{_OWN}/\0", f"{_OWN}/{'x' * 65_535}", f"{_OWN}/\n", f"$share/g/{_OWN}/7",
    ],
)  # fmt: skip
def test_any_other_response_topic_is_ignored(wanted: str | None) -> None:
    assert answer_topic(SERVICE, "d1", wanted) == _OWN


@given(st.text(max_size=60), st.sampled_from(["", _OWN, f"{_OWN}/", "edgeloop/v1/"]))
def test_no_response_topic_leads_to_another_device_or_to_an_input(text: str, start: str) -> None:
    found = answer_topic(SERVICE, "d1", start + text)
    parts = parse_device_topic("/".join(found.split("/")[:5]))
    assert parts == (SERVICE, "d1", "result") and not set(found) & set("+#")


def test_a_response_topic_travels_with_the_message(site: Site) -> None:
    (take, *_) = site.intake.handlers([SERVICE], ["+"], None).values()
    site.device.subscribe(f"{_OWN}/7", site._result)
    take(Message(device_topic(SERVICE, "d1", "input"), b"[0.5,1]", response_topic=f"{_OWN}/7"), lambda: None)
    message, result = site.result()
    assert message.topic == f"{_OWN}/7" and result["captured"]


def test_where_the_node_may_not_answer_the_device_is_answered_on_its_own_topic(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden, publish = f"{_OWN}/7", site.node.publish_then

    def guarded(topic: str, payload: bytes, done: Done, **more: Any) -> None:
        if topic == forbidden:
            done(BrokerRefused("not there"))
        else:
            publish(topic, payload, done, **more)

    monkeypatch.setattr(site.node, "publish_then", guarded)
    (take, *_) = site.intake.handlers([SERVICE], ["+"], None).values()
    acked: list[bool] = []
    take(
        Message(device_topic(SERVICE, "d1", "input"), b"[0.5,1]", response_topic=forbidden), lambda: acked.append(True)
    )
    assert site.result()[0].topic == _OWN
    assert site.intake.stop(60) and acked == [True]


def test_a_node_that_fails_on_a_message_answers_it_and_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(site.bench.gateway, "begin", lambda *_: [][0])
    site.send(b"[0.5,1]", correlation=b"c")
    message, result = site.result()
    assert "the node failed" in result["error"] and message.correlation == b"c"
    assert site.intake.stop(60) and site.unacknowledged() == 0
    assert "an input was not answered" in caplog.text


def test_a_capture_time_that_is_too_long_to_be_sent_back_is_not(site: Site) -> None:
    read = "\ufffd" * 30_000  # so many bytes that are no text: each becomes three
    site.send(b"[0.5,1]", properties={"captured-at": read}, correlation=b"c")
    message, result = site.result()
    assert "captured-at is" in result["error"] and message.correlation == b"c" and message.properties == {}
    assert site.intake.stop(60) and site.unacknowledged() == 0


@pytest.mark.parametrize("forbidden", [False, True])
def test_an_answer_that_cannot_be_published_costs_only_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, forbidden: bool
) -> None:
    publish, own = site.node.publish_then, device_topic(SERVICE, "d1", "result")

    def guarded(topic: str, payload: bytes, done: Done, **more: Any) -> None:
        if topic != own:
            done(BrokerRefused("not there"))
        elif more["correlation"] == b"bad":
            raise struct.error("too long")
        else:
            publish(topic, payload, done, **more)

    monkeypatch.setattr(site.node, "publish_then", guarded)
    (take, *_) = site.intake.handlers([SERVICE], ["+"], None).values()
    acked: list[bool] = []
    wanted = f"{own}/7" if forbidden else None
    message = Message(device_topic(SERVICE, "d1", "input"), b"[0.5,1]", correlation=b"bad", response_topic=wanted)
    take(message, lambda: acked.append(True))
    site.send(b"[0.5,2]")
    assert site.result()[1]["captured"]
    assert site.intake.stop(60) and acked == [True] and site.unacknowledged() == 0
    assert "a result was not published" in caplog.text


class Disk:
    """A gateway that begins: its results are there when the disk is. With a ``gate`` beginning takes until it opens."""

    def __init__(self, gateway: Answers, gate: threading.Event | None = None) -> None:
        self.gateway = gateway
        self.gate = gate
        self.begun: list[bytes] = []
        self.written = threading.Event()

    def begin(self, service: str, device: str, payload: bytes, at: datetime | None = None) -> Callable[[], Result]:
        self.begun.append(payload)
        if self.gate is not None:
            self.gate.wait(10)
            self.written.set()

        def finish() -> Result:
            self.written.wait(10)
            return self.gateway.begin(service, device, payload, at)()

        return finish

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gateway, name)


def test_inputs_that_wait_for_the_disk_wait_together_and_are_acknowledged_after(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop.edge.mqtt.workers.BATCH_SECONDS", 60)
    disk = Disk(site.bench.gateway)
    intake = Intake(disk, 2)
    intake.attach(site.node)
    acked: list[int] = []
    (take, *_) = intake.handlers([SERVICE], ["+"], None).values()
    topic = device_topic(SERVICE, "d1", "input")
    take(Message(topic, b"[0,1]"), lambda: acked.append(0))
    wait_until("the first is begun", lambda: len(disk.begun) == 1)
    with intake._workers._free:  # nobody begins one before all are queued
        for number in range(1, 20):
            take(Message(topic, b"[0.5,%d]" % number), partial(acked.append, number))
    wait_until("the others are begun while the first waits", lambda: len(disk.begun) == 20)
    assert not acked and site.results.empty()
    disk.written.set()
    assert intake.stop(60) and sorted(acked) == list(range(20))


def test_an_intake_is_busy_while_as_much_waits_as_may(site: Site) -> None:
    gate = threading.Event()
    intake = Intake(Disk(site.bench.gateway, gate), 2)
    intake.attach(site.node)
    (take, *_) = intake.handlers([SERVICE], ["+"], None).values()
    topic = device_topic(SERVICE, "d1", "input")
    for number in range(2):
        take(Message(topic, b"[0.5,%d]" % number), lambda: None)
    wait_until("both workers have one", lambda: not intake.busy() and len(intake._workers) == 0)
    for number in range(2):
        take(Message(topic, b"[0.6,%d]" % number), lambda: None)
    assert intake.busy()
    gate.set()
    assert intake.stop(60) and not intake.busy()


def test_many_bytes_make_an_intake_busy_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "WAITING_BYTES", 1000)
    gate = threading.Event()
    intake = Intake(Disk(site.bench.gateway, gate), 8)
    intake.attach(site.node)
    (take, *_) = intake.handlers([SERVICE], ["+"], None).values()
    for _ in range(9):
        take(Message(device_topic(SERVICE, "d1", "input"), b"1" * 1000), lambda: None)
    wait_until("one is left over", lambda: len(intake._workers) == 1)
    assert intake.busy()
    gate.set()
    assert intake.stop(60) and not intake.busy()


def test_a_retained_input_is_no_new_capture(site: Site) -> None:
    site.send(b"[0.5,1]", retain=True)  # delivered live, then kept by the broker
    site.result()
    wait_until("it is acknowledged", lambda: site.unacknowledged() == 0)
    site.node.close()
    site.intake.stop(60)
    site.start()
    site.send(b"[0.5,2]")
    site.result()
    assert site.intake.stop(60) and site.unacknowledged() == 0
    assert site.results.empty() and site.bench.spool.samples == 2


def test_what_comes_while_stopping_is_left_to_the_session(site: Site) -> None:
    assert site.intake.stop(60)
    site.send(b"[0.5,1]")
    site.node.close()
    site.start()
    assert site.result()[1]["captured"]


def test_results_wait_for_the_broker_that_delivered_the_input(site: Site) -> None:
    site.intake.stop(60)
    site.node.close()
    site.intake = Intake(site.bench.gateway, 4)
    node = site.hub.connect("node", clean=False, subscriptions=site.intake.handlers([SERVICE], ["+"], None))
    site.send(b"[0.5,1]")
    site.intake.attach(node)
    assert site.result()[1]["captured"]


def test_an_input_is_acknowledged_only_when_its_result_is_out(site: Site) -> None:
    site.intake.stop(60)
    acked: list[bool] = []
    intake = Intake(site.bench.gateway, 2)
    (take, *_) = intake.handlers([SERVICE], ["+"], None).values()
    take(Message(device_topic(SERVICE, "d1", "input"), b"[0.5,1]"), lambda: acked.append(True))
    wait_until("it is kept", lambda: site.bench.spool.samples == 1)
    assert not intake.stop(0.2)
    assert not acked and site.bench.spool.samples == 1
    intake.attach(site.node)
    site.result()
    assert intake.stop(60) and acked == [True]


def test_a_gone_broker_means_no_acknowledgement(site: Site) -> None:
    site.intake.stop(60)
    acked: list[bool] = []
    intake = Intake(site.bench.gateway, 2)
    site.node.close()
    intake.attach(site.node)
    (take, *_) = intake.handlers([SERVICE], ["+"], None).values()
    take(Message(device_topic(SERVICE, "d1", "input"), b"[0.5,1]"), lambda: acked.append(True))
    assert intake.stop(60) and not acked


def test_only_the_named_devices_are_answered_and_a_group_shares(site: Site) -> None:
    filters = set(site.intake.handlers([SERVICE], ["d1", "d2"], "g"))
    assert filters == {
        f"$share/g/edgeloop/v1/{SERVICE}/{device}/{leaf}" for device in ("d1", "d2") for leaf in ("input", "feedback")
    }
