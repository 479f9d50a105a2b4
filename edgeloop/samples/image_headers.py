"""What an image file says of itself, read before anything is decoded: a hostile one must cost neither memory nor time.

Formats: JPEG markers by ITU-T T.81 (annex B), PNG chunks by the W3C's PNG specification (third edition).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
#: More than any camera writes; each costs a little time.
_MOST_SEGMENTS, _MOST_CHUNKS, _MOST_SCANS, _MOST_JUNK = 2_000, 50_000, 100, 4_096
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE = frozenset({0xC0, 0xC1})
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
_SOS, _EOI = 0xDA, 0xD9


class MalformedImage(ValueError):
    """The file is not whole, not sound or not a still image; says why."""


@dataclass(frozen=True)
class Header:
    """Size in pixels, and whether a decoder can go through the file in rows, at a fraction of the size."""

    width: int
    height: int
    by_rows: bool


def read_png(data: bytes) -> tuple[Header, bytes]:
    """The header, and the file without ancillary chunks: text, profiles and transparency, which may be large.

    Raises:
        MalformedImage: truncated, animated, or its chunks are not in order.
    """
    kept: list[tuple[int, int]] = []
    place, has_extras, kind = len(PNG_SIGNATURE), False, b""
    for number in range(_MOST_CHUNKS):
        if place + 12 > len(data):
            raise MalformedImage("the PNG is truncated")
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            raise MalformedImage("the PNG is truncated")
        if (kind == b"IHDR") != (number == 0) or (number == 0 and length != 13):
            raise MalformedImage("the PNG has no single IHDR chunk at its beginning")
        if kind == b"acTL":
            raise MalformedImage("the PNG is animated")
        if kind[0] & 0x20:  # a small letter: no decoder needs it
            has_extras = True
        elif kept and kept[-1][1] == place:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((place, end))
        place = end
        if kind == b"IEND":
            break
    else:
        raise MalformedImage(f"the PNG has over {_MOST_CHUNKS} chunks")
    width, height = struct.unpack_from(">II", data, len(PNG_SIGNATURE) + 8)
    lean = PNG_SIGNATURE + b"".join(data[first:last] for first, last in kept) if has_extras else data
    return Header(width, height, by_rows=False), lean


def read_jpeg(data: bytes) -> Header:
    """The header of a JPEG file.

    Raises:
        MalformedImage: truncated before its first scan, or not as JPEG files are.
    """
    place, junk, header = 2, 0, None
    for _ in range(_MOST_SEGMENTS):
        marker, start = _next_marker(data, place)
        junk += start - place
        if junk > _MOST_JUNK:
            raise MalformedImage("the JPEG has other bytes between its segments")
        if marker == _SOS and header is not None:
            return replace(header, by_rows=_scans(data, start) == 1 and header.by_rows)
        if marker in {_SOS, _EOI}:
            raise MalformedImage("the JPEG has no frame before its first scan")
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        place = start + 2 + length
        if place > len(data) or length < 2:
            raise MalformedImage("the JPEG is truncated or a segment has no length")
        if marker in _SOF:
            if header is not None or length < 8:
                raise MalformedImage("the JPEG has not one whole frame")
            height, width = struct.unpack_from(">HH", data, start + 5)
            header = Header(width, height, by_rows=marker in _BASELINE)
    raise MalformedImage(f"the JPEG has over {_MOST_SEGMENTS} segments")


def _scans(data: bytes, start: int) -> int:
    """Scans of the image whose first one is at ``start``, not of a second image behind it."""
    values = np.frombuffer(data, dtype=np.uint8)[start:]
    # In coded data 0xFF is followed by 0. Searching bytes for two of them takes ten times as long.
    markers = values[1:][values[:-1] == 0xFF]
    ends = np.flatnonzero(markers == _EOI)
    scans = int(np.count_nonzero(markers[: ends[0] if len(ends) else None] == _SOS))
    if scans > _MOST_SCANS:
        raise MalformedImage(f"the JPEG has over {_MOST_SCANS} scans")
    return scans


def _next_marker(data: bytes, place: int) -> tuple[int, int]:
    """The next marker that has a segment, and where its 0xFF is; those that stand alone are junk here."""
    for _ in range(_MOST_JUNK):
        place = data.find(b"\xff", place)
        if place < 0 or place + 1 >= len(data):
            break
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _ALONE:
            place += 2
        else:
            return marker, place
    raise MalformedImage("the JPEG is truncated")
