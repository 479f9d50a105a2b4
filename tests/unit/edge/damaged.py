"""Pictures damaged in every way that a seed can think of, and a service that takes them to the real decoder."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from edgeloop.clients.models import Answer
from edgeloop.edge.runtime import Loaded
from edgeloop.edge.stats import ServiceStats
from edgeloop.samples.payloads import decode_image
from edgeloop.samples.service import ImageInput, NodeConfig
from tests.unit.edge.fakes import Bench
from tests.unit.samples.make import picture

EYE = "eye"
WHOLE = (picture(1, (16, 12)), picture(2, (16, 12), "PNG"))
_SIGNATURE = 8
_MARKERS = [b"\xff\xd9", b"\xff\xda", b"\xff\xc2", b"\xff\xe1\xff\xff", b"\xff\xdd\x00\x04\x00\x00", b"\xff\x00"]
_SIZES = [0, 1, 7, 255, 1500, 30_000, 2**31 - 1, 2**32 - 1]


@dataclass
class EyeModel:
    """Answers how bright a picture is."""

    labels: tuple[str, ...] | None = ("dark", "bright")
    backbone_digest: str | None = None

    def predict(self, payload: bytes) -> Answer:
        share = float(decode_image(payload, 16).mean()) / 255
        return Answer("bright" if share > 0.5 else "dark", max(share, 1 - share), (1 - share, share), None)


def serve_eye(bench: Bench) -> ServiceStats:
    """Serve it beside what the node serves already; returns its counters."""
    image, selection = ImageInput(size=16, max_bytes=20_000), bench.config.selection
    known = NodeConfig(
        service=EYE, kind="image-classifier", image=image, labels=["dark", "bright"], selection=selection
    )
    bench.runtime.switch(EYE, Loaded("sha256:eye", "1", known, EyeModel()))
    return bench.stats.services.setdefault(EYE, ServiceStats())


def damaged(draw: random.Random) -> bytes:
    """A JPEG or PNG with up to four faults, one in ten with none."""
    data = draw.choice(WHOLE)
    faults = draw.choice((0, 1, 1, 1, 1, 1, 2, 2, 3, 4))
    for _ in range(faults):
        data = draw.choice((_flipped, _flipped, _cut, _grown, _resized, _rechunked))(draw, data)
    return data


def _flipped(draw: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        if out:
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def _cut(draw: random.Random, data: bytes) -> bytes:
    at = draw.randint(0, len(data))
    return data[:at] if draw.random() < 0.5 else data[:at] + data[at + draw.randint(1, 20) :]


def _grown(draw: random.Random, data: bytes) -> bytes:
    at = draw.randint(0, len(data))
    more = draw.choice([*_MARKERS, data, draw.randbytes(draw.choice((1, 30, 500)))])
    return (data[:at] + more + data[at:])[:10_000]


def _resized(draw: random.Random, data: bytes) -> bytes:
    """Another size in the header, its checksum right."""
    width, height = draw.choice(_SIZES), draw.choice(_SIZES)
    frame = data.find(b"\xff\xc0")
    if data.startswith(b"\xff\xd8") and frame >= 0:
        return data[: frame + 5] + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF) + data[frame + 9 :]
    return _with_chunk(data, _SIGNATURE, lambda body: struct.pack(">II", width, height) + body[8:])


def _rechunked(draw: random.Random, data: bytes) -> bytes:
    """Faults behind a right checksum: in the header's types, or in what the pixels are when inflated."""
    if draw.random() < 0.5:
        types = bytes(draw.choice((0, 0, 1, 2, 3, 4, 6, 8, 16)) for _ in range(5))
        return _with_chunk(data, _SIGNATURE, lambda body: body[:8] + types)
    pixels = draw.randbytes(draw.choice((0, 10, 590, 5000))) + bytes(draw.choice((0, 0, 1_000_000)))
    return _with_chunk(data, data.find(b"IDAT") - 4, lambda _: zlib.compress(pixels))


def _with_chunk(data: bytes, at: int, change: Callable[[bytes], bytes]) -> bytes:
    """``data`` with the body of the PNG chunk at ``at`` changed; what has no chunk there stays as it is."""
    if at < _SIGNATURE or at + 8 > len(data):
        return data
    length, kind = struct.unpack_from(">I4s", data, at)
    body = change(data[at + 8 : at + 8 + length])
    made: bytes = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return data[:at] + made + data[at + 12 + length :]
