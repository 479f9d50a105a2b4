"""The adapter on paho-mqtt 2: MQTT 5, or 3.1.1 where the broker speaks no more."""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.clients.broker_dispatch import Handlers, collect, settle
from edgeloop.clients.broker_types import (
    SESSION_SECONDS,
    Ack,
    Address,
    Broker,
    BrokerRefused,
    Handler,
    Message,
    parse_url,
)

_log = logging.getLogger(__name__)
_KEEPALIVE = 20


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
    handlers = Handlers(subscriptions or {})
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
        settle(future, error)
        return future

    def came(self, mid: int, error: Exception | None) -> None:
        with self._lock:
            future = self._waiting.pop(mid, None)
            if future is None:
                self._early[mid] = error
        if future is not None:
            settle(future, error)

    def fail_all(self, error: Exception) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
        for future in waiting:
            settle(future, error)


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
        handlers: Handlers,
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
            settle(future, self.address.unavailable(mqtt.error_string(info.rc)))
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
        return collect(self, self._handlers, topic_filter, quiet, timeout)

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
