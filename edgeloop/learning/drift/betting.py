"""Wealth of a gambler who bets against "nothing has changed": the evidence that every drift test here reports.

Under the null the wealth is a non-negative (super)martingale that starts at one, so that the chance that it ever
reaches 1/alpha is at most alpha, however often and whenever one looks (Ville 1939; Ramdas et al. 2023,
doi:10.1214/23-STS894). A gambler who bets from the first sample is ruined long before a late change. This one puts
a little more of the cash on the table at each sample, and so pays for a change after n samples with 1.5 log n.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Wealth is not counted beyond this: the case was closed long ago, and numbers must stay finite.
_RICHEST = 1e250


class Wealth:
    """Cash, and the capital that lies on each of several bets."""

    def __init__(self, bets: int) -> None:
        self.samples = 0
        self._cash = 1.0
        self._capital = np.zeros(bets)
        self._sums = np.zeros(bets)
        self._starts = np.zeros(bets, dtype=np.int64)

    def keep(self) -> dict[str, NDArray[Any]]:
        """All that must be kept to go on later; see :meth:`restore`."""
        cash = np.asarray([self._cash, self.samples], dtype=np.float64)
        return {"cash": cash, "capital": self._capital, "sums": self._sums, "starts": self._starts}

    @classmethod
    def restore(cls, kept: Mapping[str, NDArray[Any]]) -> Wealth:
        """The gambler that was kept."""
        made = cls(len(kept["capital"]))
        made._cash, made.samples = float(kept["cash"][0]), int(kept["cash"][1])
        made._capital, made._sums, made._starts = (kept[name].copy() for name in ("capital", "sums", "starts"))
        return made

    def play(self, factors: NDArray[np.float64]) -> float:
        """Take one sample's factor of each bet, float64 [bets]; return the wealth after it.

        Each factor is positive and fixed by a bet made before the sample, and its mean under the null is at most one.
        """
        self.samples += 1
        left = float((1 + self.samples) ** -0.5)
        self._capital += (self._cash - left) / len(self._capital)
        self._cash = left
        self._capital = np.minimum(self._capital * factors, _RICHEST)
        self._follow(factors)
        return self.total

    def _follow(self, factors: NDArray[np.float64]) -> None:
        """Page's cumulative sum of each bet (Page 1954): its last zero is where the change most likely began."""
        self._sums += np.log(factors)
        empty = self._sums <= 0
        self._sums[empty] = 0
        self._starts[empty] = self.samples

    @property
    def total(self) -> float:
        return self._cash + float(self._capital.sum())

    @property
    def since(self) -> int:
        """How many samples came before the change, by the bet that won most."""
        return int(self._starts[self._capital.argmax()])
