"""How alike two photos are: re-encoded, resized and slightly cropped ones are nearly the same miniature.

A split by the digest of a file parts them, and a model would be judged on what it has learned by heart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.samples.records import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Pixels of a miniature's side.
SIDE = 16


class Miniature(Record):
    """What an accepted photo looks like from afar, kept to compare later ones with."""

    sample_id: str
    group: str
    miniature: bytes
    """Grey values, uint8 [16, 16], row by row."""


def miniature(image: NDArray[np.uint8]) -> bytes:
    """Grey means (ITU-R BT.601) of an RGB image [side, side, 3] on a grid of 16 x 16, as bytes."""
    from PIL import Image

    grey = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.uint8).tobytes()


def looks(miniatures: list[bytes]) -> NDArray[np.float32]:
    """Miniatures as centred unit vectors, float32 [photos, 256]: their dot product is their correlation.

    One without any contrast is the zero vector, and like nothing.
    """
    grey = np.frombuffer(b"".join(miniatures), dtype=np.uint8).reshape(-1, SIDE * SIDE).astype(np.float32)
    centred = grey - grey.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(length > 0, length, 1), dtype=np.float32)
