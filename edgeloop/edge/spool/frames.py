"""The frames of a spool's log: each can be found and checked by itself, so that damage costs what it touches.

A frame is a mark, the length of its body, a CRC-32, the tier of the record's value, and the body. After damage the
reader looks for the next mark whose frame holds. Logs of before there were tiers are read too.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeloop.edge.spool.tiers import LABEL_TIER, TIERS
from edgeloop.samples.records import Label, Sample

#: What the marks of all versions begin with.
_SIGN = b"\xf5EL"
_MARK = _SIGN + b"\x02"
_HEADER = struct.Struct(">4sIIB")
_OLD_MARK = _SIGN + b"\x01"
_OLD_HEADER = struct.Struct(">4sII")
_COVERED = struct.Struct(">IB")
_HEAD_LENGTH = struct.Struct(">I")

Spooled = Sample | Label


class Frame(NamedTuple):
    """One frame that holds, and where it lies: bytes ``start`` to ``end``."""

    start: int
    end: int
    tier: int
    body: bytes


@dataclass
class Scan:
    """What a log holds."""

    frames: list[Frame] = field(default_factory=list)
    broken: list[tuple[int, int]] = field(default_factory=list)
    """Byte ranges that are not frames but once were."""
    end: int = 0
    """Where the half-written tail begins; the length of the data when there is none."""


def frame(body: bytes, tier: int = TIERS - 1) -> bytes:
    """Wrap one body."""
    return _HEADER.pack(_MARK, len(body), _check(body, tier), tier) + body


def _check(body: bytes, tier: int) -> int:
    # The length is covered too: a frame cut short at a lucky place must not pass.
    return zlib.crc32(body, zlib.crc32(_COVERED.pack(len(body), tier)))


def scan(data: bytes) -> Scan:
    """Find all frames of ``data``, what is broken between them, and a half-written tail."""
    found = Scan()
    position = 0
    while position < len(data):
        whole = _frame_at(data, position)
        if whole is not None:
            found.frames.append(whole)
            position = whole.end
            continue
        following = _next_frame(data, position + 1)
        if following is None and _is_torn(data, position):
            found.end = position
            return found
        found.broken.append((position, len(data) if following is None else following))
        position = found.broken[-1][1]
    found.end = len(data)
    return found


def _frame_at(data: bytes, position: int) -> Frame | None:
    if data.startswith(_OLD_MARK, position):
        return _old_frame_at(data, position)
    start = position + _HEADER.size
    if start > len(data):
        return None
    mark, length, check, tier = _HEADER.unpack_from(data, position)
    if mark != _MARK or tier > LABEL_TIER or start + length > len(data):
        return None
    body = data[start : start + length]
    return Frame(position, start + length, tier, body) if _check(body, tier) == check else None


def _old_frame_at(data: bytes, position: int) -> Frame | None:
    start = position + _OLD_HEADER.size
    if start > len(data):
        return None
    _, length, check = _OLD_HEADER.unpack_from(data, position)
    body = data[start : start + length]
    if start + length > len(data) or zlib.crc32(body, length) != check:
        return None
    return Frame(position, start + length, TIERS - 1, body)


def _next_frame(data: bytes, position: int) -> int | None:
    while (position := data.find(_SIGN, position)) >= 0:
        if _frame_at(data, position) is not None:
            return position
        position += 1
    return None


def _is_torn(data: bytes, position: int) -> bool:
    """Whether what is left is a frame that was being written: cut short, or blocks of zeros never filled."""
    left = data[position:]
    if len(left) < _HEADER.size or not left.strip(b"\0"):
        return True
    mark, length, *_ = _HEADER.unpack_from(left)
    header = _OLD_HEADER if mark == _OLD_MARK else _HEADER
    return bool(mark in {_MARK, _OLD_MARK} and len(left) < header.size + length)


def encode(record: Spooled, sequence: int | None = None) -> bytes:
    """One record as a body: JSON, with the binary fields behind it; ``sequence`` becomes a field of the record."""
    payload = record.payload if isinstance(record, Sample) else b""
    embedding = record.embedding if isinstance(record, Sample) else None
    kind = "sample" if isinstance(record, Sample) else "label"
    lengths = [len(payload), None if embedding is None else len(embedding)]
    fields = _fields(record)
    # Of two fields of one name the last one counts.
    if sequence is not None:
        fields = f'{fields[:-1]},"sequence":{sequence}}}'
    text = f'{{"kind":"{kind}","lengths":{json.dumps(lengths)},"record":{fields}}}'.encode()
    return b"".join((_HEAD_LENGTH.pack(len(text)), text, payload, embedding or b""))


def _fields(record: Spooled) -> str:
    binary = {"payload", "embedding"}
    try:
        return record.model_dump_json(exclude=binary)
    except ValueError:  # half of a character, which json can write; pydantic is four times as fast
        return json.dumps(record.model_dump(mode="json", exclude=binary))


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
