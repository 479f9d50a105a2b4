"""A broker inside the process with the same behaviour, for tests and for what stands on a broker."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import paho.mqtt.client as mqtt

from edgeloop.clients.broker_acks import settled
from edgeloop.clients.broker_dispatch import Handlers, bare_filter, collect
from edgeloop.clients.broker_gather import Gatherings, Limits
from edgeloop.clients.broker_types import BrokerUnavailable, Done, Gathered, Handler, Message

_log = logging.getLogger(__name__)


@dataclass
class _Session:
    """What a broker remembers of one client."""

    handlers: Handlers
    limit: int
    queue: deque[Message] = field(default_factory=deque)
    flying: dict[int, Message] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    """Of those, the ones whose handler failed."""
    online: bool = True
    count: int = 0
    pumping: bool = False


class MemoryHub:
    """A broker inside the process: retained messages, sessions, wills, shared subscriptions."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._retained: dict[str, Message] = {}
        self._sessions: dict[str, _Session] = {}
        self._turn = 0

    def connect(
        self,
        client_id: str,
        *,
        will: Message | None = None,
        clean: bool = True,
        receive_maximum: int = 64,
        subscriptions: Mapping[str, Handler] | None = None,
        on_connect: Callable[[], None] | None = None,
    ) -> MemoryBroker:
        """Connect as :func:`connect` does, without an address."""
        handlers = Handlers(subscriptions or {})
        with self._lock:
            old = None if clean else self._sessions.get(client_id)
            session = _Session(handlers, receive_maximum, old.queue if old else deque())
            self._sessions[client_id] = session
        broker = MemoryBroker(self, client_id, session, clean=clean, will=will, on_connect=on_connect)
        for topic_filter in handlers.filters():
            self.send_retained(session, topic_filter)
        self.pump(session)
        if on_connect:
            on_connect()
        return broker

    def route(self, message: Message) -> None:
        """Deliver ``message`` to all sessions, and keep it if it is retained (empty: forget the topic's)."""
        with self._lock:
            if message.retain:
                self._retained.pop(message.topic, None)
                if message.payload:
                    self._retained[message.topic] = message
            takers = self._takers(message.topic)
        for session in takers:
            session.queue.append(replace(message, retain=False))
            self.pump(session)

    def _takers(self, topic: str) -> list[_Session]:
        plain: list[_Session] = []
        shared: dict[str, list[_Session]] = {}
        for session in self._sessions.values():
            match = [f for f in session.handlers.filters() if mqtt.topic_matches_sub(bare_filter(f), topic)]
            if any(not f.startswith("$share/") for f in match):
                plain.append(session)
            for group in {f.split("/")[1] for f in match if f.startswith("$share/")}:
                shared.setdefault(group, []).append(session)
        self._turn += 1
        chosen = [members[self._turn % len(members)] for members in shared.values()]
        return plain + [s for s in chosen if s not in plain]

    def send_retained(self, session: _Session, topic_filter: str) -> None:
        """Queue the retained messages of a new subscription."""
        if not topic_filter.startswith("$share/"):
            with self._lock:
                session.queue.extend(m for t, m in self._retained.items() if mqtt.topic_matches_sub(topic_filter, t))

    def pump(self, session: _Session) -> None:
        """Deliver what the receive maximum allows, in order."""
        with self._lock:
            if session.pumping:  # a handler that acknowledges at once comes back here
                return
            session.pumping = True
        while True:
            with self._lock:
                if not (session.online and session.queue and len(session.flying) < session.limit):
                    session.pumping = False
                    return
                session.count += 1
                mid, message = session.count, session.queue.popleft()
                session.flying[mid] = message
            if not session.handlers.dispatch(message, lambda mid=mid: self._acked(session, mid)):  # type: ignore[misc]
                session.failed.add(mid)

    def _acked(self, session: _Session, mid: int) -> None:
        with self._lock:
            session.flying.pop(mid, None)
        self.pump(session)

    def cut(self, session: _Session) -> None:
        """Lose the link and get it back: only what no handler has in work comes again."""
        with self._lock:
            again = [session.flying.pop(mid) for mid in sorted(session.failed & session.flying.keys())]
            session.queue.extendleft(reversed(again))
            session.failed = set()

    def leave(self, client_id: str, session: _Session, clean: bool) -> None:
        """Take a client offline; a kept session gets back what was not acknowledged."""
        with self._lock:
            session.online = False
            session.queue.extendleft(reversed(session.flying.values()))
            session.flying = {}
            if clean and self._sessions.get(client_id) is session:
                del self._sessions[client_id]


class MemoryBroker:
    """A connection to a :class:`MemoryHub`."""

    def __init__(
        self,
        hub: MemoryHub,
        client_id: str,
        session: _Session,
        *,
        clean: bool,
        will: Message | None,
        on_connect: Callable[[], None] | None,
    ) -> None:
        self._hub, self._client_id, self._session = hub, client_id, session
        self._clean, self._will, self._announce = clean, will, on_connect
        self._gatherings = Gatherings(self, Limits())

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        return self._session.online

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
        timeout: float = 10.0,
    ) -> None:
        """See :class:`Broker`."""
        self.check()
        self._hub.route(Message(topic, bytes(payload), dict(properties or {}), retain, correlation))

    def publish_nowait(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
    ) -> Future[None]:
        """See :class:`Broker`."""
        future: Future[None] = Future()
        self.publish_then(
            topic, payload, settled(future), retain=retain, properties=properties, correlation=correlation, qos=qos
        )
        return future

    def publish_then(
        self,
        topic: str,
        payload: bytes,
        done: Done,
        *,
        retain: bool = False,
        properties: Mapping[str, str] | None = None,
        correlation: bytes | None = None,
        qos: int = 1,
    ) -> None:
        """See :class:`Broker`."""
        try:
            self.publish(topic, payload, retain=retain, properties=properties, correlation=correlation)
        except BrokerUnavailable as error:
            done(error)
        else:
            done(None)

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """See :class:`Broker`."""
        self._session.handlers.add(topic_filter, handler)
        self._hub.send_retained(self._session, topic_filter)
        self._hub.pump(self._session)

    def unsubscribe(self, topic_filter: str, handler: Handler | None = None) -> None:
        """See :class:`Broker`."""
        self._session.handlers.remove(topic_filter, handler)

    def collect_retained(
        self, topic_filter: str, *, quiet: float = 0.3, timeout: float = 5.0, mark: str | None = None
    ) -> list[Message]:
        """See :class:`Broker`; nothing to wait for here."""
        self.check()
        if mark is not None:
            return self._gatherings.once(topic_filter, mark, timeout)
        return collect(self, self._session.handlers, topic_filter, 0.01, timeout)

    def gather(self, topic_filter: str, mark: str, *, timeout: float = 30.0) -> Gathered:
        """See :class:`Broker`."""
        return self._gatherings.read(topic_filter, mark, timeout)

    def check(self) -> None:
        """See :class:`Broker`."""
        if not self.connected:
            raise BrokerUnavailable("the in-memory broker's connection is closed: connect again")

    def close(self) -> None:
        """See :class:`Broker`."""
        self._hub.leave(self._client_id, self._session, self._clean)

    def drop(self) -> None:
        """Cut the link as a failing network does, publish the will, and come back."""
        self._gatherings.renewed()
        self._session.online = False
        if self._will:
            self._hub.route(self._will)
        self._hub.cut(self._session)
        self._session.online = True
        self._hub.pump(self._session)
        if self._announce:
            self._announce()
