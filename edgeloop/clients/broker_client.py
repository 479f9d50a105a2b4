"""paho's client with three steps done our way: reading from the socket, reading a PUBLISH, reading a PUBACK.

paho closes the connection over a reason code that is not meant for a PUBACK (mosquitto sends 0x95 for a message
over its ``message_size_limit``), connects again, and sends the message again, for ever.

These are paho's inner methods. Should a later paho name them otherwise, its own are used and the tests on hostile
properties fail: nothing else depends on them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import paho.mqtt.client as mqtt
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.exception import MalformedPacket
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.clients.broker_wire import Incoming, MalformedPublish, read_publish

_BUFFER = 65_536
#: Reason codes from here on are failures (MQTT 5, 2.4).
FAILURE = 0x80
_NEXT_STEPS = {0x87: "check its access rules", 0x95: "send a smaller one", 0x97: "wait, or raise its quota"}
_NAMES = {0x83: "implementation specific error", 0x87: "Not authorized", 0x90: "Topic name invalid"}
_NAMES |= {0x95: "Packet too large", 0x97: "Quota exceeded", 0x99: "Payload format invalid"}
_NO_PROPERTIES = Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]

_FINE = MQTTErrorCode.MQTT_ERR_SUCCESS
#: Linux holds back what is sent until it is taken away again; None where there is no such thing.
_CORK: int | None = getattr(socket, "TCP_CORK", None)

#: Called with (message, is a repetition, is retained, QoS) in the network thread.
Take = Callable[[Incoming, bool, bool, int], None]


def reason_text(code: int) -> str:
    """What a PUBACK says, and what to do."""
    return f"{_NAMES.get(code, 'reason')} {code:#04x}: {_NEXT_STEPS.get(code, 'see the log of the broker')}"


def send_at_once(_client: mqtt.Client, _data: Any, sock: Any) -> None:
    """With Nagle's algorithm each acknowledged message waits 40 ms for the other side's delayed acknowledgement."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _set(link: Any, option: int, value: int) -> None:
    with suppress(OSError):  # it is closed; what was held back has left before
        link.setsockopt(socket.IPPROTO_TCP, option, value)


class BufferedClient(mqtt.Client):
    """Hands each PUBLISH to ``take``. Single bytes, which paho asks for, come from a buffer, not from the system."""

    take: Take
    _held = b""
    _held_at = 0

    @property
    def buffered(self) -> bool:
        """Whether there is something to read that the socket does not show any more."""
        link: Any = self.socket()
        return self._held_at < len(self._held) or bool(getattr(link, "pending", int)())

    def _sock_recv(self, bufsize: int) -> bytes:
        held, at = self._held, self._held_at
        if at == len(held):
            if bufsize >= _BUFFER // 2:
                return super()._sock_recv(bufsize)
            self._held = held = super()._sock_recv(_BUFFER)
            at = 0
        self._held_at = at + bufsize if at + bufsize < len(held) else len(held)
        return held[at : self._held_at]

    def loop_write(self) -> MQTTErrorCode:
        """Packets that wait together leave together: each alone would wake the broker once more."""
        link: Any = self.socket()
        if _CORK is None or link is None or len(getattr(self, "_out_packet", ())) < 2:
            return super().loop_write()
        _set(link, _CORK, 1)
        try:
            return super().loop_write()
        finally:
            _set(link, _CORK, 0)

    def empty_buffer(self) -> None:
        """A new connection begins."""
        self._held, self._held_at = b"", 0

    def cut(self) -> None:
        """Break the connection without a word; the network thread finds it lost."""
        link: Any = self.socket()
        if link is not None:
            with suppress(OSError):  # it is lost already
                link.shutdown(socket.SHUT_RDWR)

    def _handle_publish(self) -> MQTTErrorCode:
        packet = cast(Any, self._in_packet)
        header: int = packet["command"]
        qos = (header >> 1) & 3
        if qos > 1:  # we subscribe with 1
            raise MalformedPacket("a PUBLISH of a quality of service that nobody asked for")
        try:
            incoming = read_publish(packet["packet"], qos, self._protocol == mqtt.MQTTv5)
        except MalformedPublish as error:
            raise MalformedPacket(str(error)) from error
        with self._in_callback_mutex:
            self.take(incoming, bool(header & 8), bool(header & 1), qos)
        return _FINE

    def _handle_pubackcomp(self, cmd: str) -> MQTTErrorCode:
        body: bytearray = cast(Any, self._in_packet)["packet"]
        if len(body) < 2:
            raise MalformedPacket("a PUBACK without the message's number")
        reason: Any = body[2] if len(body) > 2 else 0  # a number: paho's own class takes as long as a message
        with self._out_message_mutex:
            mid = body[0] << 8 | body[1]
            return self._do_on_publish(mid, reason, _NO_PROPERTIES) if mid in self._out_messages else _FINE
