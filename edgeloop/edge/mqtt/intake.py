"""Inputs and feedback over MQTT.

A message is acknowledged when its result is with the broker and its capture on the disk; until then it comes
again with the next connection, and the gateway knows it by its sample id. Whatever is wrong with a message is told
to its own device, on its own topic, and to nobody else.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from edgeloop.clients.broker import Ack, Broker, BrokerRefused, Handler, Message
from edgeloop.edge.mqtt.workers import Finish, Workers
from edgeloop.edge.results import LONGEST_DEVICE, MalformedTime, Result, parse_time
from edgeloop.samples.topics import PREFIX, device_topic, parse_device_topic

_log = logging.getLogger(__name__)
#: MQTT 5 user property with the capture time, echoed in the result.
CAPTURED_AT = "captured-at"
#: Over this many bytes of inputs that nobody has begun, nothing is read from the broker.
WAITING_BYTES = 32 * 1024 * 1024
_LARGEST_FEEDBACK = 65_536
#: Bytes of any text in MQTT.
_LONGEST_TEXT = 65_535

Answer = Callable[[], Result | None]


class Answers(Protocol):
    """What the intake wants of a gateway."""

    def begin(
        self, service: str, device: str, payload: bytes, captured_at: datetime | None = None
    ) -> Callable[[], Result]:
        """Answer an input but for the disk; what is returned waits for it. So many inputs share one sync."""
        ...

    def feedback(self, service: str, device: str, payload: bytes, at: datetime | None = None) -> Result | None: ...

    def reject(self, service: str, device: str, error: str) -> Result: ...

    def serves(self, service: str) -> bool: ...

    def max_bytes(self, service: str) -> int: ...


@dataclass(frozen=True, slots=True)
class _Task:
    message: Message
    ack: Ack
    leaf: str


class Intake:
    """Hands inputs and feedback to the gateway, a bounded number at a time."""

    def __init__(self, gateway: Answers, inflight: int, ignored: Counter[str] | None = None) -> None:
        """``ignored`` counts what was no use, by the reason: ``retained``, ``topic``, ``unknown`` (service)."""
        self._gateway = gateway
        self._inflight = inflight
        self._workers: Workers[_Task] = Workers(self._begin, inflight, "intake")
        self._broker: Future[Broker] = Future()
        self._idle = threading.Condition()
        self._working = 0
        self._waiting_bytes = 0
        self._stopped = False
        self.ignored = Counter[str]() if ignored is None else ignored

    def handlers(self, services: list[str], devices: list[str], group: str | None) -> Mapping[str, Handler]:
        """The subscriptions: inputs are shared among the nodes of ``group``, feedback likewise."""
        share = f"$share/{group}/" if group else ""
        handlers: dict[str, Handler] = {}
        for service in services:
            for device in devices:
                for leaf in ("input", "feedback"):
                    handlers[f"{share}{PREFIX}/{service}/{device}/{leaf}"] = partial(self._take, leaf)
        return handlers

    def attach(self, broker: Broker) -> None:
        """Where results go; what came before waits for it."""
        self._broker.set_result(broker)

    def busy(self) -> bool:
        """Whether as much waits as may: the broker connection reads no further meanwhile."""
        return len(self._workers) >= self._inflight or self._waiting_bytes >= WAITING_BYTES

    def _take(self, leaf: str, message: Message, ack: Ack) -> None:
        """In the network thread."""
        if message.retain:  # kept from some earlier time, and sent again on every connect: not a new capture
            self.ignored["retained"] += 1
            _log.warning("a retained input is ignored", extra={"topic": message.topic[:200]})
            ack()
            return
        with self._idle:
            if self._stopped:  # stays unacknowledged, comes again
                return
            self._working += 1
            self._waiting_bytes += len(message.payload)
        self._workers.put(_Task(message, ack, leaf))

    def _begin(self, task: _Task) -> Finish:
        with self._idle:
            self._waiting_bytes -= len(task.message.payload)
        parts = parse_device_topic(task.message.topic)
        if parts is None or parts[2] != task.leaf:
            return partial(self._ignore, task)
        service, device, _ = parts
        if not self._gateway.serves(service):
            self.ignored["unknown"] += 1
        try:
            answer = self._start(task, service, device)
        except Exception:
            _log.exception("an input was not answered", extra={"topic": task.message.topic[:200]})
            answer = self._excuse(service, device)
        return partial(self._finish, task, service, device, answer)

    def _start(self, task: _Task, service: str, device: str) -> Answer:
        message = task.message
        limit = _LARGEST_FEEDBACK if task.leaf == "feedback" else self._gateway.max_bytes(service)
        problem = _problem(device, message, limit)
        if problem is not None:
            return partial(self._gateway.reject, service, device, problem)
        try:
            at = parse_time(message.properties.get(CAPTURED_AT))
        except MalformedTime as error:
            return partial(self._gateway.reject, service, device, str(error))
        if task.leaf == "feedback":
            return partial(self._gateway.feedback, service, device, message.payload, at)
        return self._gateway.begin(service, device, message.payload, at)

    def _excuse(self, service: str, device: str) -> Answer:
        return partial(self._gateway.reject, service, device, "the node failed on this message: send it again later")

    def _finish(self, task: _Task, service: str, device: str, answer: Answer) -> None:
        try:
            result = answer()
        except Exception:
            _log.exception("an input was not answered", extra={"topic": task.message.topic[:200]})
            result = self._excuse(service, device)()
        if result is None:
            task.ack()
            self._done()
            return
        self._publish(task, result, answer_topic(service, device, task.message.response_topic))

    def _publish(self, task: _Task, result: Result, topic: str) -> None:
        try:
            self._broker.result().publish_then(
                topic,
                result.to_bytes(),
                partial(self._published, task, result, topic),
                properties=_echo(task.message),
                correlation=task.message.correlation,
            )
        except Exception:  # what was not acknowledged would come again, and hold up all that came after it
            _log.exception("a result was not published", extra={"topic": topic[:200]})
            task.ack()
            self._done()

    def _published(self, task: _Task, result: Result, topic: str, error: Exception | None) -> None:
        if error is not None:
            own = device_topic(result.service, result.device, "result")
            if isinstance(error, BrokerRefused) and topic != own:  # this node may not answer where the device wants
                self._publish(task, result, own)
                return
            _log.error("a result was not published", extra={"error": str(error)})
        if error is None or isinstance(error, BrokerRefused):  # refused once is refused always
            task.ack()
        self._done()

    def _ignore(self, task: _Task) -> None:
        self.ignored["topic"] += 1
        _log.warning("a message on an unusable topic is ignored", extra={"topic": task.message.topic[:200]})
        task.ack()
        self._done()

    def _done(self) -> None:
        with self._idle:
            self._working -= 1
            if self._stopped:
                self._idle.notify_all()

    def stop(self, timeout: float) -> bool:
        """Take nothing more and finish what is in work; returns whether all was."""
        with self._idle:
            self._stopped = True
            finished = self._idle.wait_for(lambda: self._working == 0, timeout)
        self._workers.stop()
        return finished


def _problem(device: str, message: Message, limit: int) -> str | None:
    """What is wrong with a message before it is looked into; ``limit`` in bytes."""
    if not device or len(device) > LONGEST_DEVICE or not device.isprintable():
        return f"device name is {device[:40]!r}: use 1 to {LONGEST_DEVICE} printable characters"
    size = len(message.payload)
    if size > limit:
        return f"payload has {size} bytes and may have {limit}: send a smaller one"
    if not size:
        return "payload is empty: send an image, a feature row or a label"
    return None


def _echo(message: Message) -> dict[str, str] | None:
    """The capture time as it was sent; not if reading, where a byte that is no text becomes three, made it too long."""
    at = message.properties.get(CAPTURED_AT)
    return None if at is None or len(at.encode()) > _LONGEST_TEXT else {CAPTURED_AT: at}


def answer_topic(service: str, device: str, wanted: str | None) -> str:
    """Where the answer goes: the device's ``result``, or the MQTT 5 response topic if that lies below it.

    Any other response topic is ignored: a device must not have answers sent to another device, nor back to an input.
    """
    own = device_topic(service, device, "result")
    if wanted is None or not wanted.startswith(f"{own}/") or len(wanted.encode()) > _LONGEST_TEXT:
        return own
    return own if set(wanted) & set("+#\0") or not wanted.isprintable() else wanted
