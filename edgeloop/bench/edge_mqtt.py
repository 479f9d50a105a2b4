"""How fast a node takes 30 KB inputs from a broker, beside a subscriber that does nothing with them.

Both find the same number of messages waiting in their session, so that a publisher's speed decides nothing. The node's
model costs nothing, and every input is captured: what is measured is intake, selection, spool and answer.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from edgeloop.bench.edge_site import HOST, NodeUnderTest, measure, python, until
from edgeloop.clients import broker as brokers
from edgeloop.samples.topics import device_topic

if TYPE_CHECKING:
    from edgeloop.bench.edge_release import Releases

_SERVICE = "bench-idle"
_COUNT = re.compile(rf'edgeloop_captured_total{{service="{_SERVICE}",selected_by="audit"}} (\d+)'.encode())
#: The first and the last of the messages are left out: the one waits for the connection, the other for nothing.
_FROM, _TO = 0.05, 0.95


class MqttBench(BaseModel):
    """Messages per second, medians over the runs."""

    node: float
    bare: float
    ratio: float


def bench_mqtt(
    folder: Path,
    releases: Releases,
    broker_port: int,
    runs: int,
    messages: int,
    payload: bytes,
    say: Callable[[str], None],
) -> MqttBench:
    """Drain ``messages`` waiting messages on both sides, ``runs`` times."""
    topic = device_topic(_SERVICE, "camera", "input")
    node = NodeUnderTest(folder / "idle-node", releases.store_folder, releases.trust, broker_port, [_SERVICE])
    session = python("subscriber", HOST, str(broker_port), "bench-bare", topic)
    pairs = []
    for _ in range(runs):
        measure([*session, "0"])
        with node.run("edgeloop.bench.peers.idle_node"):
            until(lambda: _captured(node) is not None, "the idle node")
            _wait_subscribed(broker_port, node)
        _publish(broker_port, topic, payload, messages)
        bare = messages / measure([*session, str(messages)])["seconds"]
        with node.run("edgeloop.bench.peers.idle_node"):
            mine = _drain(node, messages)
        say(f"MQTT: node {mine:.0f}/s, bare {bare:.0f}/s")
        pairs.append((mine, bare))
    return MqttBench(
        node=statistics.median(p[0] for p in pairs),
        bare=statistics.median(p[1] for p in pairs),
        ratio=statistics.median(p[0] / p[1] for p in pairs),
    )


def _captured(node: NodeUnderTest) -> int | None:
    """Samples that are on its disk; None before it says so."""
    found = _COUNT.search(node.get("/metrics")[1])
    return int(found[1]) if found else None


def _wait_subscribed(port: int, node: NodeUnderTest) -> None:
    """Until an input gets through: then the node's session stands, and keeps what comes while it is away."""
    with closing(brokers.connect(f"mqtt://{HOST}:{port}", "bench-probe")) as broker:

        def captured() -> bool:
            broker.publish(device_topic(_SERVICE, "probe", "input"), b"probe")
            return bool(_captured(node))

        until(captured, "the idle node's subscription")


def _publish(port: int, topic: str, payload: bytes, count: int) -> None:
    with closing(brokers.connect(f"mqtt://{HOST}:{port}", "bench-camera")) as broker:
        waiting: list[Future[None]] = []
        for number in range(count):
            waiting.append(broker.publish_nowait(topic, payload + number.to_bytes(4, "big")))
            if len(waiting) >= 200:
                waiting.pop(0).result(60)
        for future in waiting:
            future.result(60)


def _drain(node: NodeUnderTest, messages: int) -> float:
    """Messages per second, between the shares :data:`_FROM` and :data:`_TO` of them."""
    seen: list[tuple[float, int]] = []

    def through() -> bool:
        count = _captured(node) or 0
        if count >= _FROM * messages:
            seen.append((time.perf_counter(), count))
        return count >= _TO * messages

    until(through, "the node's messages", 300)
    (begun, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - begun)
