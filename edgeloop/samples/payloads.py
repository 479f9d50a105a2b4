"""Payloads as they travel, and as numbers: one decoder for nodes and cloud, so that both see the same pixels."""

from __future__ import annotations

import io
import json
import warnings
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import BadInput
from edgeloop.samples.records import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Above this many pixels an image is refused before it is decoded (a decompression bomb).
MAX_PIXELS = 50_000_000
_LARGEST = float(np.finfo(np.float32).max)


class UndecodablePayload(BadInput):
    """The payload is not an input of this service."""


def decode_image(payload: bytes, size: int, channels: int = 3) -> NDArray[np.uint8]:
    """Decode JPEG/PNG bytes to a uint8 array of shape [size, size, channels].

    The longer side is not cropped: the image is resized to the square that the model takes.

    Raises:
        UndecodablePayload: the bytes are no JPEG or PNG, are truncated, or are too large to decode safely.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(payload), formats=("JPEG", "PNG")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UndecodablePayload(
                        f"image of {image.width}x{image.height} pixels is over {MAX_PIXELS}: send a smaller one"
                    )
                image.draft("RGB", (size, size))
                mode = "RGB" if channels == 3 else "L"
                resized = image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    except UndecodablePayload:
        raise
    except Exception as error:
        raise UndecodablePayload(
            f"payload of {len(payload)} bytes is not a JPEG or PNG image ({error}): send one whole image"
        ) from error
    return np.asarray(resized, dtype=np.uint8).reshape(size, size, channels)


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
            raise UndecodablePayload(f"feature {name} is {number!r}, not a number: send a number")
        if not -_LARGEST <= number <= _LARGEST:  # also false for NaN
            raise UndecodablePayload(f"feature {name} is {number!s:.40}: send a finite number within float32")
    return np.asarray(row, dtype=np.float32)


def _row(value: object, names: Sequence[str]) -> list[object]:
    if isinstance(value, dict):
        missing = [n for n in names if n not in value]
        unknown = [n for n in value if n not in names]
        if missing or unknown:
            raise UndecodablePayload(
                f"feature object lacks {missing} and has unknown {unknown}: send exactly {list(names)}"
            )
        return [value[n] for n in names]
    if not isinstance(value, list):
        raise UndecodablePayload(f"payload is a JSON {type(value).__name__}: send a list of {len(names)} numbers")
    if len(value) != len(names):
        raise UndecodablePayload(f"row has {len(value)} values: send {len(names)} ({', '.join(names)})")
    return value


def canonical_features(payload: bytes, names: Sequence[str]) -> bytes:
    """The canonical payload of a feature row however it was written; raises UndecodablePayload as decoding does."""
    decode_features(payload, names)
    value = json.loads(payload)
    return encode_features([value[n] for n in names] if isinstance(value, dict) else value)
