"""PUBLISH packets and their properties as bytes, because paho is too strict with the first and slow with both.

paho closes the connection over a U+FEFF in any text of a message, which MQTT 5 allows (1.5.4) and mosquitto passes
on: the broker then sends the message again, for ever, and one device has stopped the node. Here no property can.
The layout is that of MQTT 5 (3.3.2) and 3.1.1 (3.3.2).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

_USER, _RESPONSE, _CORRELATION = 0x26, 0x08, 0x09
#: Properties of a fixed size, by their identifier; and those with a length before them.
_FIXED = {0x01: 1, 0x02: 4, 0x23: 2}
_SIZED = {0x03, _RESPONSE, _CORRELATION}
_SUBSCRIPTION = 0x0B
_LENGTH = struct.Struct(">H")
#: Bytes of a text or of data: its length has two.
LONGEST = 65_535


class MalformedPublish(ValueError):
    """The packet cannot be read as a PUBLISH."""


class OversizedProperty(ValueError):
    """A text or data of a PUBLISH is longer than its length can say."""


class Incoming(NamedTuple):
    """One PUBLISH from the broker."""

    topic: bytes
    mid: int
    """0 with QoS 0."""
    payload: bytes
    user: dict[str, str]
    correlation: bytes | None
    response_topic: str | None

    @property
    def fingerprint(self) -> int:
        """Of all that stays the same when the broker sends the message again, but its number."""
        return hash((self.topic, self.payload, self.correlation, self.response_topic, *self.user.items()))


def read_publish(body: bytes | bytearray, qos: int, version5: bool) -> Incoming:
    """Read what follows the fixed header. Text that is not UTF-8 is read with replacement characters.

    Raises:
        MalformedPublish: it is cut short or holds an unknown property.
    """
    try:
        end = 2 + _LENGTH.unpack_from(body)[0]
        topic = bytes(body[2:end])
        mid = 0
        if qos:
            mid = _LENGTH.unpack_from(body, end)[0]
            end += 2
        found: dict[int, bytes] = {}
        user: dict[str, str] = {}
        if version5:
            size, end = _varint(body, end)
            if size:
                _read_properties(memoryview(body)[end : end + size].tobytes(), found, user)
            end += size
    except (struct.error, IndexError) as error:
        raise MalformedPublish(f"a PUBLISH of {len(body)} bytes is cut short") from error
    if end > len(body):
        raise MalformedPublish(f"a PUBLISH of {len(body)} bytes is cut short")
    response = found.get(_RESPONSE)
    payload = bytes(memoryview(body)[end:])
    return Incoming(topic, mid, payload, user, found.get(_CORRELATION), None if response is None else _text(response))


def _read_properties(data: bytes, found: dict[int, bytes], user: dict[str, str]) -> None:
    at = 0
    while at < len(data):
        kind = data[at]
        at += 1
        if kind == _USER:
            key, at = _sized(data, at)
            value, at = _sized(data, at)
            user[_text(key)] = _text(value)
        elif kind in _SIZED:
            found[kind], at = _sized(data, at)
        elif kind == _SUBSCRIPTION:
            _, at = _varint(data, at)
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            raise MalformedPublish(f"a PUBLISH has the unknown property {kind:#x}")


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 2
    end = start + _LENGTH.unpack_from(data, at)[0]
    if end > len(data):
        raise IndexError(end)
    return data[start:end], end


def _varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    value = shift = 0
    for _ in range(4):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise IndexError(at)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class PublishProperties(Properties):
    """User properties and correlation data of a PUBLISH, packed once; paho asks for nothing but the bytes."""

    def __init__(self, user: Mapping[str, str], correlation: bytes | None) -> None:
        """Raises OversizedProperty over 65,535 bytes of a key, a value or the correlation data."""
        # The base class builds its tables here, which takes longer than sending; __dict__ is written to
        # because it refuses attributes that are no property.
        parts = [b"" if correlation is None else b"\x09" + _pack(correlation)]
        parts += [b"\x26" + _pack(key.encode()) + _pack(value.encode()) for key, value in user.items()]
        body = b"".join(parts)
        self.__dict__.update(packetType=PacketTypes.PUBLISH, packed=_pack_varint(len(body)) + body)

    def pack(self) -> bytes:
        """Length and properties."""
        packed: bytes = self.__dict__["packed"]
        return packed

    def __str__(self) -> str:
        return f"[{len(self.pack())} bytes of properties]"


def _pack(data: bytes) -> bytes:
    if len(data) > LONGEST:
        raise OversizedProperty(f"a property of {len(data)} bytes, and it may have {LONGEST}")
    return _LENGTH.pack(len(data)) + data


def _pack_varint(value: int) -> bytes:
    packed = bytearray()
    while True:
        value, low = divmod(value, 128)
        packed.append(low | (128 if value else 0))
        if not value:
            return bytes(packed)
