"""What is not an input at all: tiny images, black or blurred frames, and rows beyond what a sensor can measure.

Images are judged on the square that the model saw, so that nothing is decoded twice; limits are therefore those of
an image of the model's size. Only how large they were before is read off the file's header.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.samples.payloads import UndecodablePayload, decode_features, image_size

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from edgeloop.samples.selection import Validity
    from edgeloop.samples.service import Feature


@dataclass(frozen=True)
class Look:
    """An image as the model saw it, uint8 [side, side, 3], and what is measured on it (each once)."""

    pixels: NDArray[np.uint8]

    @cached_property
    def _grey(self) -> Image:
        from PIL import Image

        return Image.fromarray(self.pixels).convert("L")

    @cached_property
    def luma(self) -> NDArray[np.uint8]:
        """Luma by ITU-R BT.601, [side, side]."""
        return np.asarray(self._grey)

    @cached_property
    def dhash(self) -> int:
        """64-bit difference hash: on a grid of 9 x 8 mean lumas, whether each is darker than its right neighbour."""
        from PIL import Image

        grid = np.asarray(self._grey.resize((9, 8), Image.Resampling.BOX))
        return int.from_bytes(np.packbits(grid[:, :-1] < grid[:, 1:]).tobytes(), "big")

    @property
    def brightness(self) -> float:
        """Mean luma, 0 to 255."""
        return float(self.luma.mean())

    @property
    def sharpness(self) -> float:
        """Variance of the Laplacian (four neighbours) of the luma; 0 for an image under 3 pixels a side."""
        grey = self.luma.astype(np.int16)
        if min(grey.shape) < 3:
            return 0.0
        around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
        edges = (around - 4 * grey[1:-1, 1:-1]).ravel().astype(np.float32)
        # float32 holds these squares exactly and their sum near enough; var() would take four times as long.
        return float(np.dot(edges, edges)) / edges.size - float(edges.mean()) ** 2


def size_fault(payload: bytes, validity: Validity) -> str | None:
    """``invalid-size`` where the shorter side of an image as it was sent is too small; None where it passes."""
    if validity.smallest_side is None:
        return None
    try:
        return "invalid-size" if min(image_size(payload)) < validity.smallest_side else None
    except UndecodablePayload:  # the model answered it, so it is not for this test to refuse
        return None


def image_fault(look: Look, validity: Validity) -> str | None:
    """``invalid-black`` or ``invalid-blur``; None where the image passes."""
    if validity.black_below is not None and look.brightness < validity.black_below:
        return "invalid-black"
    if validity.blur_below is not None and look.sharpness < validity.blur_below:
        return "invalid-blur"
    return None


def row_fault(payload: bytes, features: list[Feature]) -> str | None:
    """``out-of-range`` where a value of the feature row is outside its feature's range; None where all are inside."""
    try:
        row = decode_features(payload, [f.name for f in features]).tolist()
    except UndecodablePayload:  # the model answered it, so it is not for this test to refuse
        return None
    for value, feature in zip(row, features, strict=True):
        # The range is compared at the precision of the row: 0.1 as float32 is above 0.1.
        if feature.min is not None and value < float(np.float32(feature.min)):
            return "out-of-range"
        if feature.max is not None and value > float(np.float32(feature.max)):
            return "out-of-range"
    return None
