"""What is known of the input behind a sample: its raw bytes, or their digest alone.

A node whose service says ``payload: embedding`` keeps raw inputs to itself. Its samples have an empty payload, and
the extra field ``payload_digest`` names what was seen; everything that is kept per input is kept under that name.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import digest

if TYPE_CHECKING:
    from edgeloop.samples.service import Feature, Service

#: The extra field of a sample that names the input it was made from.
PAYLOAD_DIGEST = "payload_digest"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def extras(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a table row that its record's model does not know."""
    found: dict[str, Any] = json.loads(row.get("extra") or "{}")
    return found


def is_withheld(row: Mapping[str, Any]) -> bool:
    """Whether the raw input of a sample row stayed at the node."""
    return not row["payload"] and PAYLOAD_DIGEST in extras(row)


def input_digest(row: Mapping[str, Any]) -> str:
    """Digest of the raw input of a sample row (``payload``, ``extra``), wherever that is."""
    payload: bytes = row["payload"]
    return digest(payload) if payload else str(extras(row).get(PAYLOAD_DIGEST) or digest(b""))


def is_digest(text: object) -> bool:
    """Whether this is ``sha256:`` and 64 hexadecimal digits."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def drawn_inputs(service: Service, count: int) -> list[bytes]:
    """Made-up inputs that a model of ``service`` can answer, always the same; for where no real one may be had."""
    if service.image is None:
        return [encode_features(_drawn_row(service.features or [], number)) for number in range(count)]
    return [_drawn_image(service.image.size, number) for number in range(count)]


def _drawn_row(features: list[Feature], number: int) -> list[float]:
    """A row within the ranges that the features promise."""
    share = np.random.default_rng(number).uniform(0, 1, len(features))
    row: list[float] = []
    for feature, at in zip(features, share, strict=True):
        low = feature.min if feature.min is not None else min(0.0, feature.max or 0.0)
        high = feature.max if feature.max is not None else max(1.0, low)
        row.append(float(low + at * (high - low)))
    return row


def _drawn_image(size: int, number: int) -> bytes:
    """A PNG of a few coloured fields with soft edges."""
    from PIL import Image

    fields = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(fields).resize((size, size), Image.Resampling.BICUBIC).save(sink, "PNG")
    return sink.getvalue()
