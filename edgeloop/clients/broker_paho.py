"""The adapter on paho-mqtt 2: MQTT 5, or 3.1.1 where the broker speaks no more; with TLS where the URL says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.clients.broker_acks import AckOrder, Receipts, no_ack, settled
from edgeloop.clients.broker_client import FAILURE, BufferedClient, reason_text, send_at_once
from edgeloop.clients.broker_dispatch import Handlers, collect
from edgeloop.clients.broker_first import FirstConnection
from edgeloop.clients.broker_gather import Gatherings, Limits
from edgeloop.clients.broker_loop import NetworkLoop, never
from edgeloop.clients.broker_types import SESSION_SECONDS, BrokerRefused, Done, Gathered, Handler, Message
from edgeloop.clients.broker_url import Address, RenewingContext
from edgeloop.clients.broker_wire import Incoming, PublishProperties

_log = logging.getLogger(__name__)
_KEEPALIVE = 20
#: The broker is told not to send more in one packet (MQTT 5): no message can take the memory of a small machine.
MAX_PACKET = 32 * 1024 * 1024
#: Reason codes of a broker that cannot now, and may later.
_LATER = {0x88, 0x89, 0x97, 0x9F}


class PahoBroker:
    """One connection; made by :func:`edgeloop.clients.broker.connect`."""

    def __init__(
        self,
        address: Address,
        client_id: str,
        *,
        version5: bool,
        will: Message | None,
        clean: bool,
        handlers: Handlers,
        on_connect: Callable[[], None] | None,
        busy: Callable[[], bool] | None = None,
    ) -> None:
        self.address = address
        self.version5 = version5
        self._clean = clean
        self._handlers = handlers
        self._announce = on_connect
        self._receipts = Receipts()
        self._first = FirstConnection()
        self._closed = False
        self._largest: int | None = None
        self._gatherings = Gatherings(self, Limits())
        self._client = self._make_client(client_id, will)
        self._acks = AckOrder(lambda mid: self._client.ack(mid, 1))
        self._loop = NetworkLoop(self._client, client_id, keepalive=_KEEPALIVE, busy=busy or never)

    def _make_client(self, client_id: str, will: Message | None) -> BufferedClient:
        options: dict[str, Any] = {} if self.version5 else {"clean_session": self._clean}
        protocol = mqtt.MQTTv5 if self.version5 else mqtt.MQTTv311
        client = BufferedClient(CallbackAPIVersion.VERSION2, client_id, protocol=protocol, manual_ack=True, **options)
        if self.address.user:
            client.username_pw_set(self.address.user, self.address.password)
        if will:
            client.will_set(will.topic, will.payload, 1, will.retain, self._will_properties(will))
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_socket_open = send_at_once
        client.take = self._take
        return client

    def _will_properties(self, will: Message) -> Properties | None:
        if not (self.version5 and will.properties):
            return None
        properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
        properties.UserProperty = list(will.properties.items())
        return properties

    def start(self, receive_maximum: int, timeout: float) -> None:
        """Connect and wait for the broker's word."""
        # What speaks 3.1.1 only (amqtt) drops nothing, and takes nothing in before it has its acknowledgements.
        self._gatherings = Gatherings(self, Limits(receive_maximum if self.version5 else None, holds=self.version5))
        options: dict[str, Any] = {}
        if self.version5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = receive_maximum
            properties.MaximumPacketSize = MAX_PACKET
            properties.SessionExpiryInterval = 0 if self._clean else SESSION_SECONDS
            options = {"clean_start": self._clean, "properties": properties}
        if self.address.tls is not None:
            self._client.tls_set_context(RenewingContext.of(self.address.tls))
        self._client.connect_timeout = timeout
        try:
            self._client.connect(self.address.host, self.address.port, _KEEPALIVE, **options)
        except OSError as error:
            raise self.address.failed(error) from error
        self._loop.start()
        try:
            self._first.wait(timeout)
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
        future: Future[None] = Future()
        done = settled(future)
        self.publish_then(topic, payload, done, retain=retain, properties=properties, correlation=correlation, qos=qos)
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
            sent = None
            if self.version5 and (properties or correlation):
                sent = PublishProperties(properties or {}, correlation)
            if self._largest is not None:
                size = len(payload) + len(topic.encode()) + (len(sent.pack()) if sent else 1) + 9
                if size > self._largest:
                    done(self._refuses(f"a message of {size} bytes, and takes {self._largest}: send a smaller one"))
                    return
            info = self._client.publish(topic, payload, qos, retain, sent)
        except ValueError as error:
            done(self._refuses(f"a message on {topic[:80]!r} ({error}): mend what this names"))
            return
        kept = (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN) if qos else (mqtt.MQTT_ERR_SUCCESS,)
        if self._closed or info.rc not in kept:
            done(self.address.unavailable(mqtt.error_string(info.rc)))
            return
        self._receipts.expect(info.mid, done)

    def subscribe(self, topic_filter: str, handler: Handler) -> None:
        """See :class:`Broker`."""
        self._handlers.add(topic_filter, handler)
        try:
            self._subscribe_now([topic_filter])
        except BrokerRefused:  # not to be asked for again with every connection
            self._handlers.remove(topic_filter, handler)
            raise

    def _subscribe_now(self, filters: Sequence[str]) -> None:
        result, mid = self._client.subscribe([(f, 1) for f in filters])
        if result == mqtt.MQTT_ERR_SUCCESS and mid is not None:
            future: Future[None] = Future()
            self._receipts.expect(mid, settled(future))
            self._wait(future, 10.0)

    def unsubscribe(self, topic_filter: str, handler: Handler | None = None) -> None:
        """See :class:`Broker`."""
        if self._handlers.remove(topic_filter, handler):
            self._client.unsubscribe(topic_filter)

    def collect_retained(
        self, topic_filter: str, *, quiet: float = 0.3, timeout: float = 5.0, mark: str | None = None
    ) -> list[Message]:
        """See :class:`Broker`."""
        self.check()
        if mark is not None:
            return self._gatherings.once(topic_filter, mark, timeout)
        return collect(self, self._handlers, topic_filter, quiet, timeout)

    def gather(self, topic_filter: str, mark: str, *, timeout: float = 30.0) -> Gathered:
        """See :class:`Broker`."""
        return self._gatherings.read(topic_filter, mark, timeout)

    def check(self) -> None:
        """See :class:`Broker`."""
        if not self.connected:
            raise self.address.unavailable("the connection is lost")

    def close(self) -> None:
        """See :class:`Broker`."""
        self._closed = True
        self._loop.give_up()
        is_said = self._client.disconnect() == mqtt.MQTT_ERR_SUCCESS
        self._loop.stop(goodbye=not is_said)
        self._receipts.fail_all(self.address.unavailable("the connection was closed"))

    def drop(self) -> None:
        """Cut the link as a failing network does; the connection comes back by itself."""
        self._client.cut()

    def _wait(self, future: Future[None], timeout: float) -> None:
        try:
            future.result(timeout)
        except TimeoutError as error:
            raise self.address.unavailable(f"no acknowledgement in {timeout:g} s") from error

    def _refuses(self, what: str) -> BrokerRefused:
        return BrokerRefused(f"broker {self.address} refuses {what}")

    def _on_connect(self, client: mqtt.Client, _data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            later = reason.value in _LATER
            self._refuse(self.address.unavailable(str(reason)) if later else self.address.refused(str(reason)))
            return
        self._largest = getattr(properties, "MaximumPacketSize", None)
        self._acks.stands(same_session=bool(flags.session_present))
        filters = self._handlers.filters()
        mid = client.subscribe([(f, 1) for f in filters])[1] if filters else None
        if mid is None:
            self._stands(None)
        else:
            self._receipts.expect(mid, self._stands)

    def _stands(self, error: Exception | None) -> None:
        """Connected, and the subscriptions are answered: what is published from now on is not missed."""
        if error is not None:
            if not self._first.fail(error) and not self._closed:
                _log.error("a subscription was not renewed: the client connects again", extra={"error": str(error)})
                self.drop()
            return
        if not self._first.begin():
            return
        if self._announce:
            self._announce()
        self._first.succeed()

    def _refuse(self, error: Exception) -> None:
        if not self._first.fail(error):
            _log.warning("the broker refused a reconnect", extra={"error": str(error)})

    def _on_disconnect(self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._acks.lost()
        self._gatherings.renewed()
        if self._first.fail(self.address.unavailable(f"it closed the connection: {reason}")):
            self._loop.give_up()

    def _take(self, incoming: Incoming, again: bool, retained: bool, qos: int) -> None:
        self._first.then(partial(self._hand_out, incoming, again, retained, qos))

    def _hand_out(self, incoming: Incoming, again: bool, retained: bool, qos: int) -> None:
        topic = incoming.topic.decode("utf-8", "replace")
        message = Message(
            topic, incoming.payload, incoming.user, retained, incoming.correlation, incoming.response_topic
        )
        if not qos:
            self._handlers.dispatch(message, no_ack)
            return
        delivery = self._acks.arrived(incoming.mid, incoming.fingerprint, again)
        if delivery is not None and not self._handlers.dispatch(message, delivery):
            delivery.forget()

    def _on_publish(self, _client: mqtt.Client, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        code = reason if isinstance(reason, int) else reason.value
        refused = self._refuses(f"the message ({reason_text(code)})") if code >= FAILURE else None
        self._receipts.came(mid, refused)

    def _on_subscribe(self, _client: mqtt.Client, _data: Any, mid: int, reasons: Any, _properties: Any) -> None:
        failed = [str(r) for r in reasons if r.is_failure]
        refused = self._refuses(f"a subscription ({', '.join(failed)}): check its access rules") if failed else None
        self._receipts.came(mid, refused)
