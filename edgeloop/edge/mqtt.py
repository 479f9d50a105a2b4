"""Inputs and feedback over MQTT.

A message is acknowledged when its result is with the broker and its capture on the disk; until then it comes
again with the next connection, and the gateway knows it by its sample id.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from edgeloop.clients.broker import Ack, Broker, BrokerRefused, Handler, Message
from edgeloop.edge.gateway import Gateway, MalformedTime, Result, parse_time
from edgeloop.samples.topics import PREFIX, device_topic, parse_device_topic

_log = logging.getLogger(__name__)
#: MQTT 5 user property with the capture time, echoed in the result.
CAPTURED_AT = "captured-at"

Work = Callable[[str, str, Message], Result | None]


class Intake:
    """Hands inputs and feedback to the gateway, a bounded number at a time."""

    def __init__(self, gateway: Gateway, inflight: int) -> None:
        self._gateway = gateway
        self._pool = ThreadPoolExecutor(inflight, "intake")
        self._broker: Future[Broker] = Future()
        self._idle = threading.Condition()
        self._working = 0
        self._stopped = False

    def handlers(self, services: list[str], devices: list[str], group: str | None) -> Mapping[str, Handler]:
        """The subscriptions: inputs are shared among the nodes of ``group``, feedback likewise."""
        share = f"$share/{group}/" if group else ""
        handlers: dict[str, Handler] = {}
        for service in services:
            for device in devices:
                handlers[f"{share}{PREFIX}/{service}/{device}/input"] = self._taker(self._input)
                handlers[f"{share}{PREFIX}/{service}/{device}/feedback"] = self._taker(self._feedback)
        return handlers

    def attach(self, broker: Broker) -> None:
        """Where results go; what came before waits for it."""
        self._broker.set_result(broker)

    def _taker(self, work: Work) -> Handler:
        def take(message: Message, ack: Ack) -> None:
            if message.retain:  # kept from some earlier time, and sent again on every connect: not a new capture
                _log.warning("a retained input is ignored", extra={"topic": message.topic})
                ack()
                return
            with self._idle:
                if self._stopped:  # stays unacknowledged, comes again
                    return
                self._working += 1
            self._pool.submit(self._work, work, message, ack)

        return take

    def _work(self, work: Work, message: Message, ack: Ack) -> None:
        published: Future[None] | None = None
        try:
            parts = parse_device_topic(message.topic)
            result = work(parts[0], parts[1], message) if parts else None
            if result is None:
                ack()
            else:
                published = self._publish(result, message)
                published.add_done_callback(lambda done: self._published(done, ack))
        except Exception:
            _log.exception("an input was not answered", extra={"topic": message.topic})
        finally:
            if published is None:
                self._done()

    def _publish(self, result: Result, message: Message) -> Future[None]:
        properties = {CAPTURED_AT: message.properties[CAPTURED_AT]} if CAPTURED_AT in message.properties else {}
        topic = device_topic(result.service, result.device, "result")
        return self._broker.result().publish_nowait(
            topic, result.to_bytes(), properties=properties, correlation=message.correlation
        )

    def _published(self, published: Future[None], ack: Ack) -> None:
        error = published.exception()
        if error is None or isinstance(error, BrokerRefused):  # refused once is refused always
            ack()
        if error is not None:
            _log.error("a result was not published", extra={"error": str(error)})
        self._done()

    def _done(self) -> None:
        with self._idle:
            self._working -= 1
            self._idle.notify_all()

    def _input(self, service: str, device: str, message: Message) -> Result | None:
        try:
            at = parse_time(message.properties.get(CAPTURED_AT))
        except MalformedTime as error:
            return self._gateway.reject(service, device, str(error))
        return self._gateway.handle(service, device, message.payload, at)

    def _feedback(self, service: str, device: str, message: Message) -> Result | None:
        try:
            at = parse_time(message.properties.get(CAPTURED_AT))
        except MalformedTime as error:
            return self._gateway.reject(service, device, str(error))
        return self._gateway.feedback(service, device, message.payload, at)

    def stop(self, timeout: float) -> bool:
        """Take nothing more and finish what is in work; returns whether all was."""
        with self._idle:
            self._stopped = True
            finished = self._idle.wait_for(lambda: self._working == 0, timeout)
        self._pool.shutdown(wait=finished, cancel_futures=True)
        return finished
