from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from edgeloop.clients.broker import Ack, MemoryBroker, MemoryHub, Message
from edgeloop.edge.mqtt import Intake
from edgeloop.samples.topics import device_topic
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
    made.intake.stop(5)
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
    site.send(b'{"sample_id": "%s", "label": "no"}' % (b"ab" * 32), "feedback")
    site.send(b'{"sample_id": "%s", "label": "maybe"}' % (b"ab" * 32), "feedback")
    _, result = site.result()
    assert "send one of yes, no" in result["error"] and result["sample_id"] == "ab" * 32
    site.intake.stop(5)
    assert site.bench.spool.samples == 1 and site.results.empty()
    assert site.unacknowledged() == 0


def test_a_retained_input_is_no_new_capture(site: Site) -> None:
    site.send(b"[0.5,1]", retain=True)  # delivered live, then kept by the broker
    site.result()
    site.node.close()
    site.intake.stop(5)
    site.start()
    site.send(b"[0.5,2]")
    site.result()
    assert site.intake.stop(5) and site.unacknowledged() == 0
    assert site.results.empty() and site.bench.spool.samples == 2


def test_what_comes_while_stopping_is_left_to_the_session(site: Site) -> None:
    assert site.intake.stop(5)
    site.send(b"[0.5,1]")
    site.node.close()
    site.start()
    assert site.result()[1]["captured"]


def test_results_wait_for_the_broker_that_delivered_the_input(site: Site) -> None:
    site.intake.stop(5)
    site.node.close()
    site.intake = Intake(site.bench.gateway, 4)
    node = site.hub.connect("node", clean=False, subscriptions=site.intake.handlers([SERVICE], ["+"], None))
    site.send(b"[0.5,1]")
    site.intake.attach(node)
    assert site.result()[1]["captured"]


def test_an_input_is_acknowledged_only_when_its_result_is_out(site: Site) -> None:
    site.intake.stop(5)
    acked: list[bool] = []
    intake = Intake(site.bench.gateway, 2)
    (take, *_) = intake.handlers([SERVICE], ["+"], None).values()
    take(Message(device_topic(SERVICE, "d1", "input"), b"[0.5,1]"), lambda: acked.append(True))
    assert not intake.stop(0.2)
    assert not acked and site.bench.spool.samples == 1
    intake.attach(site.node)
    site.result()
    assert intake.stop(5) and acked == [True]


def test_a_gone_broker_means_no_acknowledgement(site: Site) -> None:
    site.intake.stop(5)
    acked: list[bool] = []
    intake = Intake(site.bench.gateway, 2)
    site.node.close()
    intake.attach(site.node)
    (take, *_) = intake.handlers([SERVICE], ["+"], None).values()
    take(Message(device_topic(SERVICE, "d1", "input"), b"[0.5,1]"), lambda: acked.append(True))
    assert intake.stop(5) and not acked


def test_only_the_named_devices_are_answered_and_a_group_shares(site: Site) -> None:
    filters = set(site.intake.handlers([SERVICE], ["d1", "d2"], "g"))
    assert filters == {
        f"$share/g/edgeloop/v1/{SERVICE}/{device}/{leaf}" for device in ("d1", "d2") for leaf in ("input", "feedback")
    }
