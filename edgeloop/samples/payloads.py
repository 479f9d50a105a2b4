"""Payloads as they travel, and as numbers: one decoder for nodes and cloud, so that both see the same pixels."""

from __future__ import annotations

import io
import json
import reprlib
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import BadInput
from edgeloop.samples.image_headers import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    Header,
    MalformedImage,
    read_jpeg,
    read_png,
)
from edgeloop.samples.records import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image, ImageFile

#: A JPEG of more pixels is refused before it is decoded. It is decoded at a fraction of its size, in little memory.
MAX_PIXELS = 25_000_000
#: The limit of what must be decoded at full size, PNG and progressive JPEG: 4096 x 3072. Decoding takes up to eight
#: bytes a pixel, here 100 MB for a moment.
MAX_WHOLE_PIXELS = 4096 * 3072
_LARGEST = float(np.finfo(np.float32).max)


class UndecodablePayload(BadInput):
    """The payload is not an input of this service."""


def decode_image(payload: bytes, size: int, channels: int = 3) -> NDArray[np.uint8]:
    """Decode JPEG/PNG bytes to a uint8 array of shape [size, size, channels].

    The longer side is not cropped: the image is resized to the square that the model takes. CMYK becomes RGB, 16 bits
    become the upper 8, transparency is left out, and an EXIF orientation is not applied: pixels are as they are stored.

    Raises:
        UndecodablePayload: the bytes are no JPEG or PNG, are truncated or damaged, are animated, have no pixels, or
            are too large to decode safely (:data:`MAX_PIXELS`, :data:`MAX_WHOLE_PIXELS`).
    """
    from PIL import Image

    try:
        image = _opened(payload)
        image.draft("RGB", (size, size))
        shown = _in_mode("RGB" if channels == 3 else "L", image)
        resized = shown.resize((size, size), Image.Resampling.BILINEAR)
    except UndecodablePayload:
        raise
    except Exception as error:  # Pillow's decoders raise many classes on damaged files
        said = " ".join(str(error).split())[:200]
        raise UndecodablePayload(
            f"payload of {len(payload)} bytes is not a JPEG or PNG image ({said}): send one whole still image"
        ) from error
    return np.asarray(resized, dtype=np.uint8).reshape(size, size, channels)


def image_size(payload: bytes) -> tuple[int, int]:
    """(width, height) of a JPEG or PNG in pixels, by its header; nothing is decoded.

    Raises:
        UndecodablePayload: there is no such header.
    """
    try:
        header = _header(payload)[0]
    except MalformedImage as error:
        raise UndecodablePayload(f"payload has no size ({error}): send one whole still image") from error
    return header.width, header.height


def _header(payload: bytes) -> tuple[Header, bytes]:
    """The header, and what of the file is to be decoded."""
    if payload.startswith(JPEG_SIGNATURE):
        return read_jpeg(payload), payload
    if payload.startswith(PNG_SIGNATURE):
        return read_png(payload)
    raise MalformedImage("it begins as neither does" if payload else "it is empty")


def _opened(payload: bytes) -> ImageFile.ImageFile:
    """The image, not yet decoded. Not by Image.open: that warns of bombs, and warnings belong to all threads."""
    header, lean = _header(payload)
    _check_size(header)
    if payload.startswith(JPEG_SIGNATURE):
        from PIL.JpegImagePlugin import JpegImageFile

        return JpegImageFile(io.BytesIO(lean))
    from PIL.PngImagePlugin import PngImageFile

    return PngImageFile(io.BytesIO(lean))


def _check_size(header: Header) -> None:
    width, height, limit = header.width, header.height, MAX_PIXELS if header.by_rows else MAX_WHOLE_PIXELS
    if not width or not height:
        raise UndecodablePayload(f"image of {width}x{height} pixels shows nothing: send one with pixels")
    if width * height > limit:
        raise UndecodablePayload(f"image of {width}x{height} pixels is over {limit}: send a smaller one")


def _in_mode(mode: str, image: Image.Image) -> Image.Image:
    """The image in ``mode``; of 16 bits the upper eight, as with colours. Pillow would clip them."""
    from PIL import Image

    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def encode_features(values: Sequence[float]) -> bytes:
    """Encode a feature row as the canonical payload: a JSON list of numbers, the same bytes for the same row."""
    return canonical([float(v) for v in values])


def decode_features(payload: bytes, names: Sequence[str]) -> NDArray[np.float32]:
    """Decode a feature row (JSON list, or object by feature name) to float32 of shape [len(names)].

    Raises:
        UndecodablePayload: not JSON, wrong length, a missing or unknown name, not a number, NaN or infinite.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UndecodablePayload(f"payload is not JSON ({error}): send a list of {len(names)} numbers") from error
    row = _row(value, names)
    for name, number in zip(names, row, strict=True):
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise UndecodablePayload(f"feature {name} is {_short(number)}, not a number: send a number")
        if not -_LARGEST <= number <= _LARGEST:  # also false for NaN
            raise UndecodablePayload(f"feature {name} is {number!s:.40}: send a finite number within float32")
    return np.asarray(row, dtype=np.float32)


def _row(value: object, names: Sequence[str]) -> list[object]:
    if isinstance(value, dict):
        missing = [n for n in names if n not in value]
        unknown = [n for n in value if n not in names]
        if missing or unknown:
            raise UndecodablePayload(
                f"feature object lacks {_short(missing)} and has unknown {_short(unknown)}: send exactly {list(names)}"
            )
        return [value[n] for n in names]
    if not isinstance(value, list):
        raise UndecodablePayload(f"payload is a JSON {type(value).__name__}: send a list of {len(names)} numbers")
    if len(value) != len(names):
        raise UndecodablePayload(f"row has {len(value)} values: send {len(names)} ({', '.join(names)})")
    return value


def _short(value: object) -> str:
    """What a message quotes of a payload, however large that is."""
    return reprlib.repr(value)[:120]


def canonical_features(payload: bytes, names: Sequence[str]) -> bytes:
    """The canonical payload of a feature row however it was written; raises UndecodablePayload as decoding does."""
    decode_features(payload, names)
    value = json.loads(payload)
    return encode_features([value[n] for n in names] if isinstance(value, dict) else value)
