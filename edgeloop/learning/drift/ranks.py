"""Ranks of new samples among all before them: numbers whose law is known while nothing changes, whatever is measured.

The rank of a new score among a finite reference and the new scores before it, with ties broken at random, is uniform
on (0, 1] and independent of earlier ranks as long as all of them are exchangeable (Vovk, Gammerman and Shafer 2005,
theorem 8.1). That is exact for a finite reference, where comparing each window with the same reference again is not.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Ranks:
    """Smoothed ranks of a stream of scores after a reference; not-a-number ranks above everything."""

    def __init__(self, reference: NDArray[np.float64], seed: int, added: int = 0) -> None:
        """``reference``: float64 [samples, scores]; ``seed`` breaks ties; ``added`` of them were ranked before."""
        self._known = [sorted(column) for column in _ordered(reference).T.tolist()]
        bits = np.random.PCG64(seed)
        bits.advance(added * reference.shape[1])
        self._rng = np.random.Generator(bits)

    @property
    def known(self) -> NDArray[np.float64]:
        """Everything that a new sample is ranked among: float64 [samples, scores], each column sorted."""
        return np.asarray(self._known, dtype=np.float64).T

    def add(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ranks of new scores [samples, scores] in (0, 1], in the order of arrival; they join what is known.

        How a stream is cut into calls changes nothing.
        """
        ties = 1 - self._rng.random(scores.shape)
        out = np.empty(scores.shape)
        for row, values in enumerate(_ordered(scores).tolist()):
            for column, (value, known) in enumerate(zip(values, self._known, strict=True)):
                below, upto = bisect_left(known, value), bisect_right(known, value)
                out[row, column] = (below + ties[row, column] * (upto - below + 1)) / (len(known) + 1)
                insort(known, value)
        return out


def _ordered(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(scores), np.inf, scores)
