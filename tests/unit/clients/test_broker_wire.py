"""PUBLISH packets against paho's own writer, and against anything."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.clients.broker_wire import Incoming, MalformedPublish, PublishProperties, read_publish

_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=300)
_USER = st.dictionaries(_TEXT, _TEXT, max_size=4)


def _theirs(user: dict[str, str], correlation: bytes | None) -> Properties:
    made = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if correlation is not None:
        made.CorrelationData = correlation
    if user:
        made.UserProperty = list(user.items())
    return made


def _packet(topic: str, mid: int, properties: bytes, payload: bytes) -> bytes:
    name = topic.encode()
    return struct.pack(">H", len(name)) + name + struct.pack(">H", mid) + properties + payload


@given(_USER, st.none() | st.binary(max_size=300))
def test_properties_are_packed_as_paho_packs_them(user: dict[str, str], correlation: bytes | None) -> None:
    mine = PublishProperties(user, correlation).pack()
    read = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    _, length = read.unpack(mine)  # type: ignore[no-untyped-call]
    assert length == len(mine)
    assert dict(getattr(read, "UserProperty", [])) == user and getattr(read, "CorrelationData", None) == correlation
    assert len(mine) == len(_theirs(user, correlation).pack())  # type: ignore[no-untyped-call]


@given(_TEXT, st.integers(1, 65535), _USER, st.none() | st.binary(max_size=300), st.binary(max_size=300))
def test_what_is_written_is_read(
    topic: str, mid: int, user: dict[str, str], correlation: bytes | None, payload: bytes
) -> None:
    packed = _theirs(user, correlation)
    packed.ResponseTopic = "a/b"
    packed.ContentType = "image/jpeg"
    packed.MessageExpiryInterval = 60
    packed.SubscriptionIdentifier = 300
    packet = _packet(topic, mid, packed.pack(), payload)  # type: ignore[no-untyped-call]
    expected = Incoming(topic.encode(), mid, payload, user, correlation, "a/b")
    assert read_publish(packet, 1, True) == expected
    assert read_publish(bytearray(packet), 1, True) == expected


def test_the_older_version_has_no_properties_and_qos_0_no_number() -> None:
    assert read_publish(_packet("t", 7, b"", b"p"), 1, False) == Incoming(b"t", 7, b"p", {}, None, None)
    assert read_publish(b"\0\1tp", 0, False) == Incoming(b"t", 0, b"p", {}, None, None)


def test_text_is_read_whatever_it_is() -> None:
    for raw, text in (("\ufeff7".encode(), "\ufeff7"), (b"\xff", "\ufffd")):
        found = read_publish(
            _packet("t", 1, bytes([6 + len(raw)]) + b"\x26\0\1k\0" + bytes([len(raw)]) + raw, b""), 1, True
        )
        assert found.user == {"k": text}


@given(st.binary(max_size=60), st.integers(0, 1), st.booleans())
def test_any_bytes_are_read_or_malformed(body: bytes, qos: int, version5: bool) -> None:
    try:
        found = read_publish(body, qos, version5)
    except MalformedPublish:
        return
    assert len(found.topic) + len(found.payload) <= len(body)


@pytest.mark.parametrize("properties", [b"\x01\x7f", b"\x03\x26\0\x09", b"\x80\x80\x80\x80\x01", b"\x7f"])
def test_broken_properties_are_malformed(properties: bytes) -> None:
    with pytest.raises(MalformedPublish):
        read_publish(_packet("t", 1, properties, b""), 1, True)
