"""The MQTT broker behind one small protocol, because a message may be forgotten only when its work is durable.

paho acknowledges a message when its callback returns; here the handler is given an ``ack`` that it calls when it
is done, from whichever thread. What is not acknowledged comes again with the next connection of the session.
:class:`MemoryHub` is a broker inside the process with the same behaviour, for tests and demos.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

_log = logging.getLogger(__name__)
#: A broker keeps the session of a client with ``clean=False`` this long, in seconds.
SESSION_SECONDS = 86_400
_KEEPALIVE = 20


class BrokerUnavailable(Unavailable):
    """The broker does not answer, or the connection to it is lost."""


class BrokerRefused(EdgeloopError):
    """The broker answered, and refused a publish or a subscription."""


class MalformedBrokerUrl(BadInput):
    """Not ``mqtt://[user:password@]host:port``."""


@dataclass(frozen=True)
class Message:
    """One message; ``properties`` are MQTT 5 user properties and stay empty under 3.1.1."""

    topic: str
    payload: bytes
    properties: Mapping[str, str] = field(default_factory=dict)
    retain: bool = False
    correlation: bytes | None = None
    """MQTT 5 correlation data."""


Ack = Callable[[], None]
#: Called in the network thread: it must not block. It calls ``ack`` when the work is durable.
Handler = Callable[[Message, Ack], None]


class Broker(Protocol):
    """A connection that comes back by itself, with its subscriptions. For use from any thread."""

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        ...

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
        """Publish and wait for the acknowledgement; never call it from a handler.

        Raises:
            BrokerUnavailable: no acknowledgement within ``timeout`` seconds (it may still go out later).
            BrokerRefused: the broker does not take it.
        """
        ...

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
        """Publish; the future is done when the broker has acknowledged, if need be after a reconnect."""
        ...

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """Subscribe with QoS 1, now and after every reconnect. Messages no handler matches are acknowledged.

        Raises:
            BrokerUnavailable: no answer within ten seconds; the subscription is made on reconnect.
            BrokerRefused: the broker forbids the filter.
        """
        ...

    def unsubscribe(self, topic_filter: str) -> None:
        """Forget the handlers of ``topic_filter``."""
        ...

    def collect_retained(self, topic_filter: str, *, quiet: float = 0.3, timeout: float = 5.0) -> list[Message]:
        """Retained messages under ``topic_filter``, collected until none came for ``quiet`` seconds.

        Raises:
            BrokerUnavailable: there is no connection.
        """
        ...

    def check(self) -> None:
        """Raise BrokerUnavailable unless the connection stands."""
        ...

    def close(self) -> None:
        """Say goodbye (no will is published) and stop; the session keeps what is unacknowledged."""
        ...


@dataclass(frozen=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def unavailable(self, why: str) -> BrokerUnavailable:
        """The error that names this broker and the next step."""
        return BrokerUnavailable(f"broker {self} does not answer ({why}): start it, or set EDGELOOP_BROKER")


def parse_url(url: str) -> Address:
    """Read ``mqtt://[user:password@]host:port``; the port defaults to 1883.

    Raises:
        MalformedBrokerUrl: anything else.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise MalformedBrokerUrl(f"broker URL {url!r}: {error}: write mqtt://[user:password@]host:port") from error
    if parts.scheme != "mqtt" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise MalformedBrokerUrl(f"broker URL {url!r} is not one: write mqtt://[user:password@]host:port")
    user = unquote(parts.username) if parts.username else None
    return Address(parts.hostname, port or 1883, user, unquote(parts.password) if parts.password else None)


def connect(
    url: str,
    client_id: str,
    *,
    will: Message | None = None,
    clean: bool = True,
    receive_maximum: int = 64,
    subscriptions: Mapping[str, Handler] | None = None,
    on_connect: Callable[[], None] | None = None,
    timeout: float = 10.0,
) -> Broker:
    """Connect with MQTT 5, or 3.1.1 where the broker speaks no more.

    With ``clean=False`` the broker keeps what comes while this client is away; give ``subscriptions`` then, so
    that a handler stands before the first kept message arrives. ``receive_maximum`` bounds unacknowledged
    messages (MQTT 5 only). ``on_connect`` is called in the network thread when the
    connection and its subscriptions stand, the first time and again, and must not block.

    Raises:
        BrokerUnavailable: no connection within ``timeout`` seconds; the message names host and port.
        MalformedBrokerUrl: ``url`` is not one.
    """
    address = parse_url(url)
    handlers = _Handlers(subscriptions or {})
    protocol = mqtt.MQTTv5 if _speaks_mqtt5(address, timeout) else mqtt.MQTTv311
    broker = PahoBroker(address, client_id, protocol, will=will, clean=clean, handlers=handlers, on_connect=on_connect)
    try:
        broker.start(clean, receive_maximum, timeout)
    except BaseException:
        broker.close()
        raise
    return broker


def _speaks_mqtt5(address: Address, timeout: float) -> bool:
    """Ask with the shortest MQTT 5 request.

    A 3.1.1 broker reads the properties of a fuller request as a client name and may wait for its end for ever,
    or just hang up. Only an MQTT 5 answer is longer than two bytes.
    """
    import socket

    request = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
    try:
        with socket.create_connection((address.host, address.port), timeout) as link:
            link.sendall(request)
            answer = link.recv(2)
            if len(answer) == 2 and answer[1] > 2:
                link.sendall(b"\xe0\x00")
                return True
            while link.recv(64):  # let it hang up first
                pass
    except ConnectionResetError:
        return False
    except OSError as error:
        raise address.unavailable(str(error)) from error
    return False


def bare_filter(topic_filter: str) -> str:
    """The filter without its ``$share/<group>/``."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter


class _Handlers:
    """Who gets a message."""

    def __init__(self, first: Mapping[str, Handler]) -> None:
        self._lock = threading.Lock()
        self._items: list[tuple[str, Handler]] = list(first.items())

    def add(self, topic_filter: str, handler: Handler) -> None:
        with self._lock:
            self._items.append((topic_filter, handler))

    def remove(self, topic_filter: str, handler: Handler | None = None) -> bool:
        """Forget; returns whether nobody else listens to this filter."""
        with self._lock:
            self._items = [i for i in self._items if i[0] != topic_filter or handler not in (None, i[1])]
            return all(f != topic_filter for f, _ in self._items)

    def filters(self) -> list[str]:
        with self._lock:
            return list(dict.fromkeys(f for f, _ in self._items))

    def dispatch(self, message: Message, ack: Ack) -> bool:
        """Hand ``message`` to every match, acknowledge when all have; False when one failed."""
        with self._lock:
            found = [h for f, h in self._items if mqtt.topic_matches_sub(bare_filter(f), message.topic)]
        if not found:
            _log.debug("no handler for a message", extra={"topic": message.topic})
            ack()
            return True
        done = _countdown(len(found), ack)
        handled = [_call(handler, message, done) for handler in found]
        return all(handled)


def _call(handler: Handler, message: Message, done: Ack) -> bool:
    try:
        handler(message, done)
    except Exception:
        _log.exception("a handler failed: its message stays unacknowledged", extra={"topic": message.topic})
        return False
    return True


def _countdown(count: int, ack: Ack) -> Ack:
    left = [None] * count

    def done() -> None:
        try:
            left.pop()
        except IndexError:  # acknowledged twice
            return
        if not left:
            ack()

    return done


class _AckOrder:
    """Acknowledgements leave in the order in which the messages came, as the standard wants."""

    def __init__(self, send: Callable[[int], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._slots: deque[list[Any]] = deque()

    def arrived(self, mid: int) -> tuple[Ack, Ack]:
        """Return (ack, forget) for a message that came in on this connection."""
        slot = [mid, False, True]  # message id, done, to be sent
        with self._lock:
            self._slots.append(slot)
        return lambda: self._done(slot), lambda: self._done(slot, send=False)

    def _done(self, slot: list[Any], send: bool = True) -> None:
        with self._lock:
            slot[1], slot[2] = True, send
            while self._slots and self._slots[0][1]:
                mid, _, to_send = self._slots.popleft()
                if to_send:
                    self._send(mid)

    def reset(self) -> None:
        """A new connection: the old ids mean nothing on it, their messages come again."""
        with self._lock:
            self._slots = deque()


class _Receipts:
    """Futures of packets on their way; the answer may be here before the future is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[None]] = {}
        self._early: dict[int, Exception | None] = {}

    def expect(self, mid: int) -> Future[None]:
        future: Future[None] = Future()
        with self._lock:
            if mid not in self._early:
                self._waiting[mid] = future
                return future
            error = self._early.pop(mid)
        _settle(future, error)
        return future

    def came(self, mid: int, error: Exception | None) -> None:
        with self._lock:
            future = self._waiting.pop(mid, None)
            if future is None:
                self._early[mid] = error
        if future is not None:
            _settle(future, error)

    def fail_all(self, error: Exception) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            _settle(future, error)


def _settle(future: Future[None], error: Exception | None) -> None:
    if future.set_running_or_notify_cancel():
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


class PahoBroker:
    """The adapter on paho-mqtt 2; made by :func:`connect`."""

    def __init__(
        self,
        address: Address,
        client_id: str,
        protocol: Any,
        *,
        will: Message | None,
        clean: bool,
        handlers: _Handlers,
        on_connect: Callable[[], None] | None,
    ) -> None:
        self.address = address
        self.version5 = protocol == mqtt.MQTTv5
        self._handlers = handlers
        self._announce = on_connect
        self._receipts = _Receipts()
        self._first: Future[None] = Future()
        self._closed = False
        options: dict[str, Any] = {} if self.version5 else {"clean_session": clean}
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=protocol, manual_ack=True, **options
        )
        self._acks = _AckOrder(lambda mid: self._client.ack(mid, 1))
        self._client.reconnect_delay_set(min_delay=1, max_delay=30)
        if address.user:
            self._client.username_pw_set(address.user, address.password)
        if will:
            properties = self._properties(PacketTypes.WILLMESSAGE, will.properties, None)
            self._client.will_set(will.topic, will.payload, 1, will.retain, properties)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_socket_open = _send_at_once

    def start(self, clean: bool, receive_maximum: int, timeout: float) -> None:
        """Connect and wait for the broker's word."""
        options: dict[str, Any] = {}
        if self.version5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = receive_maximum
            properties.SessionExpiryInterval = 0 if clean else SESSION_SECONDS
            options = {"clean_start": clean, "properties": properties}
        try:
            self._client.connect(self.address.host, self.address.port, _KEEPALIVE, **options)
        except OSError as error:
            raise self.address.unavailable(str(error)) from error
        self._client.loop_start()
        try:
            self._first.result(timeout)
        except TimeoutError as error:
            raise self.address.unavailable(f"no answer in {timeout:g} s") from error

    @property
    def connected(self) -> bool:
        """Whether the connection stands now."""
        return self._client.is_connected()

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
        future = self.publish_nowait(
            topic, payload, retain=retain, properties=properties, correlation=correlation, qos=qos
        )
        self._wait(future, timeout)

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
        sent = self._properties(PacketTypes.PUBLISH, properties, correlation)
        info = self._client.publish(topic, payload, qos, retain, sent)
        kept = (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN) if qos else (mqtt.MQTT_ERR_SUCCESS,)
        if self._closed or info.rc not in kept:
            future: Future[None] = Future()
            _settle(future, self.address.unavailable(mqtt.error_string(info.rc)))
            return future
        return self._receipts.expect(info.mid)

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """See :class:`Broker`."""
        self._handlers.add(topic_filter, handler)
        self._subscribe_now([topic_filter])

    def _subscribe_now(self, filters: Sequence[str]) -> None:
        result, mid = self._client.subscribe([(f, 1) for f in filters])
        if result == mqtt.MQTT_ERR_SUCCESS and mid is not None:
            self._wait(self._receipts.expect(mid), 10.0)

    def unsubscribe(self, topic_filter: str) -> None:
        """See :class:`Broker`."""
        if self._handlers.remove(topic_filter):
            self._client.unsubscribe(topic_filter)

    def collect_retained(self, topic_filter: str, *, quiet: float = 0.3, timeout: float = 5.0) -> list[Message]:
        """See :class:`Broker`."""
        self.check()
        return _collect(self, self._handlers, topic_filter, quiet, timeout)

    def check(self) -> None:
        """See :class:`Broker`."""
        if not self.connected:
            raise self.address.unavailable("the connection is lost")

    def close(self) -> None:
        """See :class:`Broker`."""
        self._closed = True
        self._client.disconnect()
        self._client.loop_stop()
        self._receipts.fail_all(self.address.unavailable("the connection was closed"))

    def drop(self) -> None:
        """Cut the link as a failing network does; the connection comes back by itself."""
        link: Any = self._client.socket()
        if link is not None:
            link.shutdown(2)

    def _wait(self, future: Future[None], timeout: float) -> None:
        try:
            future.result(timeout)
        except TimeoutError as error:
            raise self.address.unavailable(f"no acknowledgement in {timeout:g} s") from error

    def _properties(self, packet: int, user: Mapping[str, str] | None, correlation: bytes | None) -> Properties | None:
        if not self.version5 or not (user or correlation):
            return None
        properties = Properties(packet)  # type: ignore[no-untyped-call]
        if user:
            properties.UserProperty = list(user.items())
        if correlation:
            properties.CorrelationData = correlation
        return properties

    def _on_connect(self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refuse(self.address.unavailable(f"it says: {reason}"))
            return
        self._acks.reset()
        filters = self._handlers.filters()
        mid = client.subscribe([(f, 1) for f in filters])[1] if filters else None
        if mid is None:
            self._stands(None)
        else:
            self._receipts.expect(mid).add_done_callback(lambda done: self._stands(done.exception()))

    def _stands(self, error: BaseException | None) -> None:
        """Connected, and the subscriptions are answered: what is published from now on is not missed."""
        if error is not None and not self._first.done():
            self._first.set_exception(error)
            return
        if error is not None:
            _log.error("a subscription was not renewed", extra={"error": str(error)})
        if self._announce:
            self._announce()
        if not self._first.done():
            self._first.set_result(None)

    def _refuse(self, error: Exception) -> None:
        if not self._first.done():
            self._first.set_exception(error)
        else:
            _log.warning("the broker refused a reconnect", extra={"error": str(error)})

    def _on_disconnect(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._acks.reset()
        if not self._first.done():
            self._first.set_exception(self.address.unavailable(f"it closed the connection: {reason}"))

    def _on_message(self, _client: mqtt.Client, _data: Any, incoming: mqtt.MQTTMessage) -> None:
        ack, forget = self._acks.arrived(incoming.mid) if incoming.qos else (_nothing, _nothing)
        try:
            message = _message(incoming)
        except UnicodeDecodeError:
            _log.warning("a topic is not UTF-8: its message is dropped")
            ack()
            return
        if not self._handlers.dispatch(message, ack):
            forget()

    def _on_publish(self, _client: mqtt.Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        refused = BrokerRefused(f"broker {self.address} refuses the message: {reason}: check its access rules")
        self._receipts.came(mid, refused if reason.is_failure else None)

    def _on_subscribe(self, _client: mqtt.Client, _data: Any, mid: int, reasons: Any, _properties: Any) -> None:
        failed = [str(r) for r in reasons if r.is_failure]
        refused = BrokerRefused(f"broker {self.address} refuses a subscription: {failed}: check its access rules")
        self._receipts.came(mid, refused if failed else None)


def _send_at_once(_client: mqtt.Client, _data: Any, sock: Any) -> None:
    # With Nagle's algorithm each acknowledged message waits 40 ms for the other side's delayed acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _nothing() -> None:
    """The acknowledgement of a message that needs none."""


def _message(incoming: mqtt.MQTTMessage) -> Message:
    user = dict(getattr(incoming.properties, "UserProperty", None) or [])
    correlation = getattr(incoming.properties, "CorrelationData", None)
    return Message(incoming.topic, bytes(incoming.payload), user, bool(incoming.retain), correlation)


def _collect(broker: Broker, handlers: _Handlers, topic_filter: str, quiet: float, timeout: float) -> list[Message]:
    from queue import Empty, SimpleQueue
    from time import monotonic

    arrived: SimpleQueue[Message] = SimpleQueue()

    def keep(message: Message, ack: Ack) -> None:
        if message.retain:
            arrived.put(message)
        ack()

    end, found = monotonic() + timeout, dict[str, Message]()
    broker.subscribe(topic_filter, keep)
    try:
        while (left := end - monotonic()) > 0:
            message = arrived.get(timeout=min(quiet, left))
            found[message.topic] = message
    except Empty:
        pass
    finally:
        if handlers.remove(topic_filter, keep):
            broker.unsubscribe(topic_filter)
    return list(found.values())


@dataclass
class _Session:
    """What a broker remembers of one client."""

    handlers: _Handlers
    limit: int
    queue: deque[Message] = field(default_factory=deque)
    flying: dict[int, Message] = field(default_factory=dict)
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
        handlers = _Handlers(subscriptions or {})
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
            session.handlers.dispatch(message, lambda mid=mid: self._acked(session, mid))  # type: ignore[misc]

    def _acked(self, session: _Session, mid: int) -> None:
        with self._lock:
            session.flying.pop(mid, None)
        self.pump(session)

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
        try:
            self.publish(topic, payload, retain=retain, properties=properties, correlation=correlation)
        except BrokerUnavailable as error:
            _settle(future, error)
        else:
            _settle(future, None)
        return future

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """See :class:`Broker`."""
        self._session.handlers.add(topic_filter, handler)
        self._hub.send_retained(self._session, topic_filter)
        self._hub.pump(self._session)

    def unsubscribe(self, topic_filter: str) -> None:
        """See :class:`Broker`."""
        self._session.handlers.remove(topic_filter)

    def collect_retained(self, topic_filter: str, *, quiet: float = 0.3, timeout: float = 5.0) -> list[Message]:
        """See :class:`Broker`; nothing to wait for here."""
        self.check()
        return _collect(self, self._session.handlers, topic_filter, 0.01, timeout)

    def check(self) -> None:
        """See :class:`Broker`."""
        if not self.connected:
            raise BrokerUnavailable("the in-memory broker's connection is closed: connect again")

    def close(self) -> None:
        """See :class:`Broker`."""
        self._hub.leave(self._client_id, self._session, self._clean)

    def drop(self) -> None:
        """Cut the link as a failing network does, publish the will, and come back."""
        self._hub.leave(self._client_id, self._session, clean=False)
        if self._will:
            self._hub.route(self._will)
        self._session.online = True
        self._hub.pump(self._session)
        if self._announce:
            self._announce()
