"""Making a connection: which version of MQTT the broker speaks is found out before, because paho must be told."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

from edgeloop.clients.broker_dispatch import Handlers
from edgeloop.clients.broker_paho import PahoBroker
from edgeloop.clients.broker_types import Broker, Handler, Message
from edgeloop.clients.broker_url import Address, parse_url

# The shortest CONNECT of each version: clean, keep-alive of 10 s, no properties, no name.
_PROBE_5 = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x0a\x00\x00\x00"
_PROBE_3 = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
_CONNACK = 0x20
_DISCONNECT = b"\xe0\x00"


def connect(
    url: str,
    client_id: str,
    *,
    will: Message | None = None,
    clean: bool = True,
    receive_maximum: int = 64,
    subscriptions: Mapping[str, Handler] | None = None,
    on_connect: Callable[[], None] | None = None,
    busy: Callable[[], bool] | None = None,
    timeout: float = 10.0,
) -> Broker:
    """Connect with MQTT 5, or 3.1.1 where the broker speaks no more; with TLS to ``mqtts://``.

    With ``clean=False`` the broker keeps what comes while this client is away; give ``subscriptions`` then, so
    that a handler stands before the first kept message arrives. No handler is called before the subscriptions stand,
    nor ever if this raises: what came meanwhile comes again to the next connection. ``receive_maximum`` bounds
    unacknowledged messages (MQTT 5 only); while ``busy()``, nothing is read from the network at all, which bounds them
    with every broker and with QoS 0 too. ``on_connect`` is called in the network thread when the connection and its
    subscriptions stand, the first time and again, and must not block; nor must ``busy``.

    Raises:
        BrokerUnavailable: no connection within ``timeout`` seconds; the message names host and port.
        UntrustedBroker: a BrokerUnavailable: the TLS connection failed, mostly over a certificate.
        BrokerRefused: wrong user or password, or a forbidden subscription.
        MalformedBrokerUrl: ``url`` is not one, or names a file that cannot be used.
    """
    address = parse_url(url)
    handlers = Handlers(subscriptions or {})
    version5 = _speaks_mqtt5(address, timeout)
    broker = PahoBroker(
        address,
        client_id,
        version5=version5,
        will=will,
        clean=clean,
        handlers=handlers,
        on_connect=on_connect,
        busy=busy,
    )
    try:
        broker.start(receive_maximum, timeout)
    except BaseException:
        broker.close()
        raise
    return broker


def _speaks_mqtt5(address: Address, timeout: float) -> bool:
    """Ask with the shortest request of each version.

    A 3.1.1 broker reads the properties of a fuller request as a client name and may wait for its end for ever, or just
    hang up, as a broker that is being stopped does too: only an answer says what it speaks, and only an MQTT 5 answer
    is longer than two bytes.
    """
    try:
        length = _answer(address, _PROBE_5, timeout)
        if length is None and (older := _answer(address, _PROBE_3, timeout)) is not None:
            # One that came back between the two questions speaks more than it was asked for.
            newer = _answer(address, _PROBE_5, timeout)
            length = older if newer is None else newer
    except OSError as error:
        raise address.failed(error) from error
    if length is None:
        raise address.failed(ConnectionResetError("it closed the connection before it answered"))
    return length > 2


def _answer(address: Address, probe: bytes, timeout: float) -> int | None:
    """Length of the CONNACK that ``probe`` gets, in bytes; None when the broker hangs up instead."""
    with _open(address, timeout) as link:
        try:
            link.sendall(probe)
            start = link.recv(1) + link.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            return None
        if len(start) < 2 or start[0] != _CONNACK:
            return None
        with suppress(OSError):
            link.sendall(_DISCONNECT)
            link.settimeout(min(timeout, 1.0))
            while link.recv(64):  # let it hang up first
                pass
    return start[1]


def _open(address: Address, timeout: float) -> socket.socket:
    link = socket.create_connection((address.host, address.port), timeout)
    if address.tls is None:
        return link
    try:
        return address.tls.context().wrap_socket(link, server_hostname=address.host)
    except BaseException:
        link.close()
        raise
