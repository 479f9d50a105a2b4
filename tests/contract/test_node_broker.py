"""A whole node on a broker that speaks MQTT 3.1.1 only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from edgeloop.clients import broker as brokers
from edgeloop.clients import broker_connect
from edgeloop.clients.broker import Ack, Message, PahoBroker
from edgeloop.edge.node import Node
from edgeloop.samples.topics import alive_topic, device_topic
from tests.servers.mosquitto import Mosquitto
from tests.unit.edge.fakes import SERVICE, publish
from tests.unit.edge.whole import Whole, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Whole]:
    monkeypatch.setattr(broker_connect, "_speaks_mqtt5", lambda *_: False)
    with Mosquitto(tmp_path / "broker") as broker:
        made = Whole(tmp_path, monkeypatch, broker.url)
        yield made
        made.cloud.close()


class Device:
    """Sends to the node, one message after another, and waits for each answer."""

    def __init__(self, whole: Whole) -> None:
        self._broker = whole.cloud
        self._results: SimpleQueue[Message] = SimpleQueue()
        self._broker.subscribe(device_topic(SERVICE, "d1", "result"), self._take)

    def _take(self, message: Message, ack: Ack) -> None:
        self._results.put(message)
        ack()

    def send(self, payload: bytes, leaf: str = "input") -> None:
        self._broker.publish(device_topic(SERVICE, "d1", leaf), payload)

    def result(self) -> dict[str, Any]:
        message = self._results.get(timeout=30)
        assert not message.properties and message.correlation is None
        found: dict[str, Any] = json.loads(message.payload)
        return found

    def has_more(self) -> bool:
        try:
            self._results.get_nowait()
        except Empty:
            return False
        return True


def test_inputs_feedback_and_reports_need_no_mqtt_5(whole: Whole) -> None:
    release = publish(whole.store, "1")
    whole.want(release)

    def converse(device: Device) -> None:
        device.send(b"[0.5,1]")
        first = device.result()
        assert first["prediction"] == "yes" and first["captured"] and first["model"] == release.digest
        device.send(b"junk")
        assert "not JSON" in device.result()["error"]
        device.send(json.dumps({"sample_id": first["sample_id"], "label": "no"}).encode(), "feedback")
        device.send(b"[0.25,1]")
        assert device.result()["captured"] and not device.has_more()  # to the feedback there is no answer

    async def work(node: Node) -> None:
        await until(lambda: node._agent.serving(SERVICE) == release.digest and whole.report())
        await asyncio.to_thread(converse, Device(whole))
        await until(lambda: node._spool.samples == 3)

    whole.run(work)
    assert {info.key.split("/")[0] for info in whole.store.list("") if SERVICE in info.key} >= {"captures", "labels"}
    report = whole.report()
    assert report is not None and not report.online and (report.answered, report.failed) == (2, 1)
    (alive,) = whole.cloud.collect_retained(alive_topic("n1"))
    assert json.loads(alive.payload)["online"] is False


def test_the_brokers_session_forgets_what_node_yaml_no_longer_names(whole: Whole) -> None:
    async def work(node: Node) -> None:
        await until(lambda: node._connection._broker)

    whole.run(work, devices=["old", "d1"])
    whole.run(work, devices=["d1"])
    heir = brokers.connect(whole.url, "edgeloop-node-n1", clean=False)  # to the same session
    topics: SimpleQueue[str] = SimpleQueue()

    def take(message: Message, ack: Ack) -> None:
        topics.put(message.topic)
        ack()

    assert isinstance(heir, PahoBroker)
    heir._handlers.add("#", take)
    for device in ("old", "d1"):
        whole.cloud.publish(device_topic(SERVICE, device, "input"), b"[0.5,1]")
    assert topics.get(timeout=30) == device_topic(SERVICE, "d1", "input") and topics.empty()
    heir.close()
