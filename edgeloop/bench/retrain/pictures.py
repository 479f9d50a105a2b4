"""Real inputs to retrain on: scanned digits as small PNG files, as many different ones as are asked for."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = tuple("0123456789")


class NoPictures(BadInput):
    """The folder of the data has no digits, or too few."""


@dataclass(frozen=True)
class Picture:
    """One input and its right answer; ``number`` is its place in the order, beyond the scans when they come again."""

    payload: bytes
    label: str
    number: int


class Pictures:
    """The scans of ``digits28.npz``, in an order of chance that is always the same."""

    def __init__(self, folder: Path) -> None:
        """Raises NoPictures when the file is not there or is damaged."""
        path = next((p for p in (folder / "digits28.npz", folder / "digits" / "digits28.npz") if p.is_file()), None)
        if path is None:
            raise NoPictures(f"{folder} has no digits28.npz, nor digits/digits28.npz: name its folder with --data DIR")
        try:
            with np.load(path, allow_pickle=False) as held:
                names = sorted(name[2:] for name in held if name.startswith("X_"))
                self._images: NDArray[np.uint8] = np.concatenate([held[f"X_{n}"] for n in names])
                self._truth: NDArray[np.int64] = np.concatenate([held[f"y_{n}"] for n in names]).astype(np.int64)
        except (KeyError, ValueError, OSError) as error:
            raise NoPictures(f"{path} is not the digits' file ({error}): fetch it again") from error
        self._order = np.random.default_rng(5).permutation(len(self._truth))

    def __len__(self) -> int:
        return len(self._truth)

    def take(self, start: int, stop: int) -> list[Picture]:
        """Pictures ``start`` to ``stop``, without ``stop``. Beyond the scans there are, they come again in files that
        differ in a comment only: other inputs with the same pixels, and so with the same features."""
        return [self._made(number) for number in range(start, stop)]

    def _made(self, number: int) -> Picture:
        again, place = divmod(number, len(self._truth))
        scan = int(self._order[place])
        return Picture(_png(self._images[scan], str(again) if again else ""), LABELS[self._truth[scan]], number)


def _png(pixels: NDArray[np.uint8], comment: str) -> bytes:
    """Ink on paper, uint8 [28, 28] with 255 for ink, as a PNG."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if comment:
        info.add_text("Comment", comment)
    sink = io.BytesIO()
    Image.fromarray(255 - pixels).save(sink, "PNG", pnginfo=info)
    return sink.getvalue()
