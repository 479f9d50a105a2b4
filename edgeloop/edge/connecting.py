"""A node's session at its broker: connected for as long as it takes, and subscribed to what node.yaml says now.

The broker keeps the session while the node is away, with every subscription that was ever made in it. Left there, one
that node.yaml no longer names would bring inputs a second time, or inputs that are no business of this node. So the
node remembers what it subscribed to, and unsubscribes what it no longer wants.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from edgeloop.clients import broker as brokers
from edgeloop.clients.broker import Ack, Broker, Handler, Message
from edgeloop.edge.config import NodeSettings
from edgeloop.edge.daemon import in_daemon
from edgeloop.edge.files import write_durably
from edgeloop.edge.logs import kind_of
from edgeloop.edge.mqtt.intake import Intake
from edgeloop.edge.releases.place import Place
from edgeloop.edge.reports import alive_message
from edgeloop.errors import EdgeloopError
from edgeloop.samples.topics import wanted_topic

_log = logging.getLogger(__name__)


class Filters:
    """The topic filters that the broker's session may hold, in ``subscriptions.json`` of the state directory.

    None is ever forgotten: an unsubscription may be lost with the connection, and another one does no harm.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "subscriptions.json"

    def replace(self, wanted: Iterable[str]) -> set[str]:
        """Remember ``wanted`` before it is subscribed to; returns what to unsubscribe."""
        known = self._read()
        self._write(known, set(wanted))
        return known.difference(wanted)

    def add(self, topic: str) -> None:
        """Remember ``topic`` before it is subscribed to."""
        self._write(self._read(), {topic})

    def _write(self, known: set[str], more: set[str]) -> None:
        if known.issuperset(more):
            return
        try:
            write_durably(self._path, json.dumps(sorted(known | more)).encode())
        except OSError as error:  # with a full disk, answering goes on
            _log.error("subscriptions.json was not written", extra={"error": str(error)})

    def _read(self) -> set[str]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return {name for name in known if isinstance(name, str)} if isinstance(known, list) else set()
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, RecursionError) as error:
            _log.error("subscriptions.json begins anew", extra={"error": kind_of(error)})
            return set()


class Connection:
    """The connection of one node."""

    def __init__(
        self,
        settings: NodeSettings,
        intake: Intake,
        notices: Mapping[str, Callable[[], None]],
        nudges: Mapping[str, Callable[[], None]],
        connected: Callable[[], None],
        place: Place,
    ) -> None:
        """What is called, in threads that are not the loop's: ``notices`` on a message of their topic, ``nudges`` by
        service when the channel of the node's ring has changed, ``connected`` on each connect.
        """
        self._settings = settings
        self._intake = intake
        self._notices = notices
        self._nudges = nudges
        self._connected = connected
        self._place = place
        self._filters = Filters(settings.state)
        self._heard: set[str] = set()
        self._broker: Broker | None = None

    async def open(self) -> None:
        """Connect, for as long as it takes; afterwards the connection comes back by itself."""
        pause = 0.5
        while self._broker is None:
            try:
                self._broker = await in_daemon(self._open_once)
            except EdgeloopError as error:
                _log.warning("no broker", extra={"error": str(error)})
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, 15.0)
        self._intake.attach(self._broker)
        await in_daemon(self.moved)

    def _open_once(self) -> Broker:
        settings = self._settings
        services = ["+"] if settings.answers_unknown else settings.services
        handlers = dict(self._intake.handlers(services, settings.devices, settings.group))
        nudges = self._nudges_here()
        handlers |= {topic: _noticed(notice) for topic, notice in {**self._notices, **nudges}.items()}
        self._heard = set(nudges)
        stale = self._filters.replace(handlers)
        broker = brokers.connect(
            settings.broker,
            f"edgeloop-node-{settings.node}",
            will=alive_message(settings.node, self._place.ring, False),
            clean=False,
            receive_maximum=settings.inflight,
            busy=self._intake.busy,
            subscriptions=handlers,
            on_connect=self._announce,
        )
        for topic in stale:
            broker.unsubscribe(topic)
        return broker

    def _announce(self) -> None:
        """After each (re)connect: say that this node is there."""
        if self._broker is not None:
            self.send(alive_message(self._settings.node, self._place.ring, True))
            self._connected()

    def _nudges_here(self) -> dict[str, Callable[[], None]]:
        return {wanted_topic(name, self._place.ring): nudge for name, nudge in self._nudges.items()}

    def moved(self) -> None:
        """Say in which ring this node is, and hear that ring's nudges; those of another one do no harm.

        The word that the broker keeps for a lost connection names the ring of the start.
        """
        if self._broker is None:
            return
        self._announce()
        for topic, nudge in self._nudges_here().items():
            if topic not in self._heard:
                self._hear(self._broker, topic, nudge)

    def _hear(self, broker: Broker, topic: str, notice: Callable[[], None]) -> None:
        self._heard.add(topic)
        self._filters.add(topic)
        try:
            broker.subscribe(topic, _noticed(notice))
        except EdgeloopError as error:  # without it, the node looks as often as it polls
            _log.warning("a notice is not heard", extra={"topic": topic, "error": str(error)})
        else:
            notice()  # what it would have told meanwhile

    def send(self, message: Message) -> None:
        """Publish if there is a connection; who is not there gets the next one."""
        if self._broker is not None and self._broker.connected:
            self._broker.publish_nowait(message.topic, message.payload, retain=message.retain)

    def close(self, last: Callable[[], list[Message]]) -> None:
        """Publish the ``last`` messages, each within a second, and say goodbye."""
        if self._broker is None:
            return
        for message in last():
            try:
                self._broker.publish(message.topic, message.payload, retain=True, timeout=1.0)
            except EdgeloopError as error:
                _log.warning("a last word was not published", extra={"error": str(error)})
        self._broker.close()


def _noticed(notice: Callable[[], None]) -> Handler:
    """A handler for messages that only say: look now."""

    def take(_message: Message, ack: Ack) -> None:
        notice()
        ack()

    return take
