"""Simulated devices: they publish inputs, wait for the answer, send again if none comes, and later say what was right.

A device keeps an input until it is answered, because only the answer says that the sample is safe; the capture time
that travels with it makes a second delivery the same sample.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgeloop.clients.broker import Ack, Broker, BrokerUnavailable, Message
from edgeloop.errors import EdgeloopError
from edgeloop.fleet.reports import collect_reports, is_online
from edgeloop.samples.records import now, sample_id
from edgeloop.samples.topics import FLUSH, device_topic
from edgeloop.sources.streams import Item

#: Seconds a device waits for an answer before it sends again, and how often it does so.
PATIENCE = 5.0
ATTEMPTS = 12

#: What the device says of an item that was captured under this sample id; None says nothing.
Labeller = Callable[[Item, str], str | None]


class Unanswered(EdgeloopError):
    """A device sent an input many times and nobody answered it."""


class NotFlushed(EdgeloopError):
    """Nodes did not report an empty spool in time."""


@dataclass(frozen=True)
class Played:
    """What the devices saw of one replay."""

    seen: int
    """Inputs answered."""
    sent: int
    """Inputs that a node captured."""
    labelled: int


class Device:
    """One device: one input in flight at a time."""

    def __init__(self, broker: Broker, service: str, name: str) -> None:
        self._broker = broker
        self._service = service
        self._name = name
        self._answers: queue.Queue[tuple[dict[str, object], bool]] = queue.Queue()
        broker.subscribe(device_topic(service, name, "result"), self._answered)

    def _answered(self, message: Message, ack: Ack) -> None:
        self._answers.put((json.loads(message.payload), "captured-at" in message.properties))
        ack()

    def ask(self, payload: bytes) -> dict[str, object]:
        """Send one input until it is answered, and return the answer.

        Raises:
            Unanswered: no node answered after several attempts.
        """
        captured_at = now()
        mine = sample_id(self._service, self._name, captured_at, payload)
        topic = device_topic(self._service, self._name, "input")
        last = "no answer"
        for _ in range(ATTEMPTS):
            try:
                self._broker.publish(topic, payload, properties={"captured-at": captured_at.isoformat()})
                answer = self._wait(mine)
            except (BrokerUnavailable, TimeoutError) as error:
                last = str(error) or last
                continue
            if "error" not in answer:
                return answer
            last = str(answer["error"])
            self._pause()
        raise Unanswered(f"device {self._name} was not answered on {topic} ({last}): see  edgeloop status")

    def _pause(self) -> None:
        """A node without a model says so at once; asking again at once would only spin."""
        threading.Event().wait(PATIENCE / 10)

    def _wait(self, mine: str) -> dict[str, object]:
        """The answer to sample ``mine``; one that names another is of an earlier input.

        Under MQTT 3.1.1 the capture time does not travel (no properties), so that the node names the sample itself.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer, exact = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no answer within {PATIENCE:.0f} s") from None
            if answer.get("sample_id") == mine or not exact:
                return answer

    def confirm(self, sample: str, label: str) -> None:
        """Say what the right answer to an earlier sample was."""
        topic = device_topic(self._service, self._name, "feedback")
        body = {"sample_id": sample, "label": label, "by": self._name}
        self._broker.publish(topic, json.dumps(body).encode())


def replay(
    broker: Broker,
    service: str,
    items: Sequence[Item],
    labeller: Labeller,
    devices: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Played:
    """Play ``items`` through ``devices`` devices at once; every input is answered when this returns.

    Raises:
        Unanswered: an input was not.
    """
    todo: Iterator[Item] = iter(items)
    lock = threading.Lock()
    counts = {"seen": 0, "sent": 0, "labelled": 0}

    def take() -> Item | None:
        with lock:
            return next(todo, None)

    def book(captured: bool, labelled: bool) -> None:
        with lock:
            counts["seen"] += 1
            counts["sent"] += captured
            counts["labelled"] += labelled
            seen = counts["seen"]
        progress(seen)

    def run(device: Device) -> None:
        while (item := take()) is not None:
            answer = device.ask(item.payload)
            label = labeller(item, str(answer["sample_id"])) if answer.get("captured") else None
            if label is not None:
                device.confirm(str(answer["sample_id"]), label)
            book(bool(answer.get("captured")), label is not None)

    with ThreadPoolExecutor(devices) as pool:
        jobs = [pool.submit(run, Device(broker, service, f"device-{i + 1}")) for i in range(devices)]
        for job in jobs:
            job.result()
    return Played(**counts)


def flush(broker: Broker, service: str, nodes: int, timeout: float = 60.0) -> None:
    """Ask all nodes to send what they have spooled, and wait until their reports say that they have.

    Raises:
        NotFlushed: they did not in time.
    """
    asked = now()
    broker.publish(FLUSH, b"{}")
    deadline = time.monotonic() + timeout
    while True:
        reports = [r for r in collect_reports(broker, service) if is_online(r)]
        done = [r for r in reports if r.at >= asked and r.spool_samples == 0]
        if len(done) == len(reports) and len(done) >= nodes:
            return
        if time.monotonic() > deadline:
            raise NotFlushed(
                f"{len(done)} of {nodes} nodes sent what they had within {timeout:.0f} s: see the nodes' logs"
            )
        if any(r.at < asked for r in reports) or len(reports) < nodes:
            broker.publish(FLUSH, b"{}")
