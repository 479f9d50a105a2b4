"""Sequential tests of one quantity each, fed sample by sample in the order of arrival.

A monitor depends on its reference, its seed and the samples alone, so that one that was lost is had again by feeding
it the same samples from the start.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeloop.errors import BadInput
from edgeloop.learning.drift.betting import Wealth
from edgeloop.learning.drift.finding import Band, Course, Finding, Kind, Point
from edgeloop.learning.drift.ranks import Ranks
from edgeloop.learning.drift.scores import Measured, as_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Slopes of the bets on a rank u: a sample's factor is 1 + slope * (u - 1/2). Positive for every rank.
_SLOPES = np.asarray([-1.9, -1.0, 1.0, 1.9])


class WrongLevel(BadInput):
    """A rate of false alarms is not between 0 and 1."""


class Monitor(Protocol):
    """A sequential test of one quantity."""

    @property
    def finding(self) -> Finding | None: ...
    @property
    def course(self) -> Course: ...
    def check(self, rows: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def look(self, rows: NDArray[np.float64], at: datetime | None = None) -> Finding | None: ...


class Record:
    """The looks of one monitor, and its finding once there is one."""

    def __init__(self, quantity: str, kind: Kind, alpha: float, floor: float | None = None) -> None:
        if not 0 < alpha < 1:
            raise WrongLevel(f"alpha {alpha} of {quantity} is no rate of false alarms: use one between 0 and 1")
        self.finding: Finding | None = None
        self._empty = Course(quantity=quantity, kind=kind, threshold=float(-np.log10(alpha)), floor=floor)
        self._points: list[Point] = []
        self._bands: list[Band] = []
        self._crossed: tuple[float, int, int] | None = None

    @property
    def course(self) -> Course:
        return self._empty.model_copy(update={"points": tuple(self._points), "bands": tuple(self._bands)})

    def sample(self, wealth: Wealth) -> None:
        """Note the first sample at which the wealth crosses the threshold; what it falls to later does not matter."""
        if self._crossed is None and (statistic := float(np.log10(wealth.total))) >= self._empty.threshold:
            self._crossed = statistic, wealth.samples, wealth.since

    def look(self, wealth: Wealth, at: datetime | None, band: Band | None = None) -> Finding | None:
        """Add a point to the course; return the finding if it is new."""
        self._points.append(Point(samples=wealth.samples, statistic=float(np.log10(wealth.total)), at=at))
        self._bands += [band] if band else []
        if self._crossed is None or self.finding is not None:
            return None
        self.finding = self._found(*self._crossed)
        return self.finding

    def _found(self, statistic: float, samples: int, since: int) -> Finding:
        return Finding(
            quantity=self._empty.quantity,
            kind=self._empty.kind,
            statistic=statistic,
            threshold=self._empty.threshold,
            samples=samples,
            since=since,
            since_at=next((p.at for p in self._points if p.samples > since), None),
            course=self.course,
        )


class TwoSample:
    """Are new samples from where the reference is from? A conformal test martingale on ranks of scores.

    Vovk et al. 2021, "Retrain or not retrain", PMLR 152; the bets are on the rank u of each score (it moved) and on
    |2u - 1| (it spread or shrank), their wealth is averaged.
    """

    def __init__(self, quantity: str, kind: Kind, measured: Measured, alpha: float, seed: int) -> None:
        """``alpha``: the most often that a stream without drift ever raises a finding. ``seed`` breaks ties."""
        self._measured = measured
        self._ranks = Ranks(measured.reference, seed)
        self._wealth = Wealth(2 * measured.reference.shape[1] * len(_SLOPES))
        self._record = Record(quantity, kind, alpha)

    @property
    def finding(self) -> Finding | None:
        return self._record.finding

    @property
    def course(self) -> Course:
        return self._record.course

    def check(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rows as they are tested, float64 [samples, width].

        Raises:
            WrongWidth: they do not have the reference's width.
        """
        return as_rows(rows, self._measured.width)

    def look(self, rows: NDArray[np.float64], at: datetime | None = None) -> Finding | None:
        """Test a window of new rows [samples, width], of any length; return the finding at the look that makes it.

        Raises:
            WrongWidth: see ``check``.
        """
        ranks = self._ranks.add(self._measured.scores(self.check(rows)))
        both = np.concatenate([ranks, np.abs(2 * ranks - 1)], axis=1) - 0.5
        for uneven in both:
            self._wealth.play((1 + np.multiply.outer(_SLOPES, uneven)).ravel())
            self._record.sample(self._wealth)
        return self._record.look(self._wealth, at)
