"""The frames of a spool's log: each can be found and checked by itself, so that damage costs what it touches.

A frame is a mark, the length and CRC-32 of its body, and the body. After damage the reader looks for the next
mark whose frame holds.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from edgeloop.samples.records import Label, Sample

_MARK = b"\xf5EL\x01"
_HEADER = struct.Struct(">4sII")
_HEAD_LENGTH = struct.Struct(">I")

Spooled = Sample | Label


@dataclass
class Scan:
    """What a log holds."""

    bodies: list[bytes] = field(default_factory=list)
    broken: list[tuple[int, int]] = field(default_factory=list)
    """Byte ranges that are not frames but once were."""
    end: int = 0
    """Where the half-written tail begins; the length of the data when there is none."""


def frame(body: bytes) -> bytes:
    """Wrap one body."""
    return _HEADER.pack(_MARK, len(body), _check(body)) + body


def _check(body: bytes) -> int:
    # The length is covered too: a frame cut short at a lucky place must not pass.
    return zlib.crc32(body, len(body) & 0xFFFFFFFF)


def scan(data: bytes) -> Scan:
    """Find all frames of ``data``, what is broken between them, and a half-written tail."""
    found = Scan()
    position = 0
    while position < len(data):
        body = _body_at(data, position)
        if body is not None:
            found.bodies.append(body)
            position += _HEADER.size + len(body)
            continue
        following = _next_frame(data, position + 1)
        if following is None and _is_torn(data, position):
            found.end = position
            return found
        found.broken.append((position, len(data) if following is None else following))
        position = found.broken[-1][1]
    found.end = len(data)
    return found


def _body_at(data: bytes, position: int) -> bytes | None:
    if position + _HEADER.size > len(data):
        return None
    mark, length, check = _HEADER.unpack_from(data, position)
    start = position + _HEADER.size
    if mark != _MARK or start + length > len(data):
        return None
    body = data[start : start + length]
    return body if _check(body) == check else None


def _next_frame(data: bytes, position: int) -> int | None:
    while (position := data.find(_MARK, position)) >= 0:
        if _body_at(data, position) is not None:
            return position
        position += 1
    return None


def _is_torn(data: bytes, position: int) -> bool:
    """Whether what is left is a frame that was being written: cut short, or blocks of zeros never filled."""
    left = data[position:]
    if len(left) < _HEADER.size or not left.strip(b"\0"):
        return True
    mark, length, _ = _HEADER.unpack_from(left)
    return bool(mark == _MARK and len(left) < _HEADER.size + length)


def encode(record: Spooled) -> bytes:
    """One record as a body: JSON, with the binary fields behind it."""
    payload = record.payload if isinstance(record, Sample) else b""
    embedding = record.embedding if isinstance(record, Sample) else None
    head = record.model_dump(mode="json", exclude={"payload", "embedding"})
    kind = "sample" if isinstance(record, Sample) else "label"
    lengths = [len(payload), None if embedding is None else len(embedding)]
    text = json.dumps({"kind": kind, "lengths": lengths, "record": head}).encode()
    return b"".join((_HEAD_LENGTH.pack(len(text)), text, payload, embedding or b""))


def decode(body: bytes) -> Spooled:
    """The record of a body; raises ValueError for anything :func:`encode` did not write."""
    if len(body) < _HEAD_LENGTH.size:
        raise ValueError(f"a body of {len(body)} bytes is too short")
    start = _HEAD_LENGTH.size + _HEAD_LENGTH.unpack_from(body)[0]
    head: dict[str, Any] = json.loads(body[_HEAD_LENGTH.size : start])
    if head["kind"] == "label":
        return Label.model_validate(head["record"])
    size, extra = head["lengths"]
    binary = {
        "payload": body[start : start + size],
        "embedding": None if extra is None else body[start + size : start + size + extra],
    }
    return Sample.model_validate(head["record"] | binary)
