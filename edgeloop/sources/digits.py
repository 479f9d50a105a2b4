"""The scanned digits that scikit-learn ships, shown as photographs whose paper, pen and camera change round by round.

The digits are real scans (Alpaydin and Kaynak 1998, 1,797 of 8 by 8 pixels); the drift between rounds is simulated.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.samples.records import digest
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.sources.streams import Domain, Item, Stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Labelled digits that the first model is made from (pool and gate).
START = 400
#: Digits that form the locked test set, each shown in every look.
TESTED = 150
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Look:
    """How a digit is photographed."""

    title: str
    angle: float
    """Degrees that the sheet is turned by."""
    stroke: int
    """Width of the pen in pixels (odd); 0 leaves it as scanned."""
    blur: float
    """Radius of the blur in pixels."""
    ink: tuple[int, int, int]
    paper: tuple[int, int, int]
    noise: float
    """Standard deviation of the sensor's noise, in grey levels."""


CLEAN = Look("clean scans", 0, 0, 0.0, (0, 0, 0), (255, 255, 255), 3)
LOOKS = (
    Look("yellowed paper, out of focus", 0, 0, 1.5, (95, 70, 45), (228, 208, 165), 12),
    Look("a marker instead of a pen", 0, 7, 0.8, (20, 20, 60), (235, 235, 245), 8),
    Look("sheet fed askew, noisy camera", 22, 0, 1.0, (60, 60, 70), (215, 215, 220), 25),
    Look("white on blue, like a blueprint", 0, 0, 0.5, (235, 240, 250), (25, 35, 80), 12),
)
SIMULATED = "Simulated: devices, labels and drift (paper, pen, camera) are simulated; the digits are real scans."


def scan(values: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Enlarge 8 by 8 ink values (0 to 16) to a uint8 [size, size] page, black on white, with a margin."""
    from PIL import Image

    page = np.full((10, 10), 255.0)
    page[1:9, 1:9] = 255.0 - values * (255.0 / 16)
    return np.asarray(Image.fromarray(page.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC))


def photograph(page: NDArray[np.uint8], look: Look, rng: np.random.Generator) -> bytes:
    """Show a page uint8 [size, size] the way ``look`` says, as JPEG bytes."""
    from PIL import Image, ImageFilter

    image = Image.fromarray(page).rotate(look.angle + rng.normal(0, 3), Image.Resampling.BICUBIC, fillcolor=255)
    if look.stroke:
        image = image.filter(ImageFilter.MinFilter(look.stroke))
    if look.blur:
        image = image.filter(ImageFilter.GaussianBlur(look.blur))
    dark, light = np.asarray(look.ink, float), np.asarray(look.paper, float)
    share = np.asarray(image, float)[..., None] / 255
    pixels = dark + share * (light - dark) + rng.normal(0, look.noise, (*page.shape, 1))
    sink = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(sink, "JPEG", quality=_JPEG_QUALITY)
    return sink.getvalue()


def load_digits_stream(service: Service, rounds: int, run: int) -> Stream:
    """Clean scans first, then one look after the other; a digit appears in one domain only, save in the test set.

    The locked test set shows its digits in every look that the rounds will bring.
    """
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    size = service.image.size if service.image else 71
    rng = np.random.default_rng([3, run])
    order = np.random.default_rng([5, run]).permutation(len(bunch.target))
    pages = [(scan(bunch.images[i], size), str(bunch.target[i])) for i in order]
    tested, played = pages[:TESTED], pages[TESTED:]
    looks = [LOOKS[i % len(LOOKS)] for i in range(rounds)]
    test = _shown_in_turn(tested, [CLEAN, *looks[: len(LOOKS)]], rng, service)
    start = _streamed(played[: START * 5 // 4], CLEAN, rng, service)[:START]
    rest = played[START * 5 // 4 :]
    share = len(rest) // rounds
    domains = [
        Domain(look.title, _streamed(rest[i * share : (i + 1) * share], look, rng, service))
        for i, look in enumerate(looks)
    ]
    return Stream(start, test, domains, SIMULATED)


def _streamed(
    pages: Sequence[tuple[NDArray[np.uint8], str]], look: Look, rng: np.random.Generator, service: Service
) -> list[Item]:
    """Items of the pool and gate splits; what a hash puts into the test split is not shown to devices."""
    items = [Item(photograph(page, look, rng), label) for page, label in pages]
    return [i for i in items if split_of(digest(i.payload), service.name) != "test"]


def _shown_in_turn(
    pages: Sequence[tuple[NDArray[np.uint8], str]], looks: Sequence[Look], rng: np.random.Generator, service: Service
) -> list[Item]:
    """Each page once per look, photographed again until the hash of the photograph puts it into the test split."""
    items: list[Item] = []
    for page, label in pages:
        for look in looks:
            while True:
                photo = photograph(page, look, rng)
                if split_of(digest(photo), service.name) == "test":
                    items.append(Item(photo, label))
                    break
    return items
