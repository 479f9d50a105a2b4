"""Has accuracy fallen? Bets on audited answers: samples drawn regardless of confidence, whose right label is known.

Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", doi:10.1093/jrsssb/qkad009.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import BadInput
from edgeloop.learning.drift.betting import Wealth
from edgeloop.learning.drift.finding import Band, Course, Finding
from edgeloop.learning.drift.record import KeptRecord, Record
from edgeloop.learning.drift.scores import as_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Shares of the largest bet that cannot lose everything.
_SHARES = np.asarray([0.1, 0.25, 0.5, 0.75])
_GRID = np.linspace(0, 1, 1001)


class NoFloor(BadInput):
    """There is no accuracy that could be fallen below."""


class Unaudited(BadInput):
    """An audited answer is neither right nor wrong."""


def accuracy_floor(right: int, samples: int, tolerance: float, alpha: float) -> float:
    """The least accuracy that the champion surely had, less what is tolerated.

    The lower end of the one-sided exact interval (Clopper and Pearson 1934) at ``alpha``. A monitor of this floor at
    level a raises false alarms in at most ``a + alpha`` of all cases.

    Raises:
        NoFloor: nothing is left: too few samples, or too much tolerance.
    """
    from scipy.stats import beta

    sure = float(beta.ppf(alpha, right, samples - right + 1)) if right else 0.0
    if sure - tolerance <= 0:
        raise NoFloor(
            f"{right} right of {samples} judged, less {tolerance}, leave no accuracy to fall below: judge more samples"
        )
    return sure - tolerance


class AccuracyMonitor:
    """Is audited accuracy below ``floor``? Bets that gain by each wrong answer and lose by each right one.

    The false alarm rate holds whenever each answer is right with a chance of at least ``floor`` given all before it.
    """

    def __init__(self, quantity: str, floor: float, alpha: float) -> None:
        if not 0 < floor < 1:
            raise NoFloor(f"floor {floor} of {quantity} cannot be fallen below: use one between 0 and 1")
        self._floor, self._alpha = floor, alpha
        self._stakes = _SHARES / (1 - floor)
        self._wealth = Wealth(len(_SHARES))
        self._record = Record(quantity, "accuracy", alpha, floor)
        self._right = 0

    def keep(self) -> tuple[KeptRecord, dict[str, NDArray[Any]]]:
        """All that must be kept to go on later; see :meth:`restore`."""
        return self._record.keep(), {**self._wealth.keep(), "right": np.asarray([self._right])}

    @classmethod
    def restore(cls, kept: KeptRecord, arrays: Mapping[str, NDArray[Any]]) -> AccuracyMonitor:
        """The monitor that was kept."""
        course = kept.course
        made = cls(course.quantity, course.floor or 0.0, 10**-course.threshold)
        made._record, made._wealth = Record.restore(kept), Wealth.restore(arrays)
        made._right = int(arrays["right"][0])
        return made

    @property
    def finding(self) -> Finding | None:
        return self._record.finding

    @property
    def course(self) -> Course:
        return self._record.course

    @property
    def width(self) -> int:
        return 1

    def check(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The answers as they are tested, float64 [samples, 1].

        Raises:
            Unaudited: a value is neither 0 nor 1.
        """
        right = as_rows(rows, 1)
        if not np.isin(right, (0, 1)).all():
            raise Unaudited(f"an audited answer of {self.course.quantity} is neither 0 nor 1: give right or wrong")
        return right

    def look(self, rows: NDArray[np.float64], at: datetime | None = None) -> Finding | None:
        """Test answers [samples] in the order of arrival, 1 where right and 0 where wrong.

        Raises:
            Unaudited: see ``check``.
        """
        for one in self.check(rows)[:, 0]:
            self._right += int(one)
            self._wealth.play(1 + self._stakes * (self._floor - one))
            self._record.sample(self._wealth)
        return self._record.look(self._wealth, at, self._band())

    def _band(self) -> Band | None:
        samples = self._wealth.samples
        if samples == 0:
            return None
        low, high = confidence_sequence(self._right, samples, self._alpha)
        return Band(samples=samples, low=low, accuracy=self._right / samples, high=high)


def confidence_sequence(right: int, samples: int, alpha: float) -> tuple[float, float]:
    """Both ends of an interval for accuracy that holds at all sample counts at once with chance ``1 - alpha``.

    Values against which a bettor who predicts answers by Krichevsky and Trofimov's rule (1981) stays poorer than
    1/alpha; in steps of 0.001. It assumes one accuracy throughout: after a change it averages over both.
    """
    from scipy.special import betaln, xlog1py, xlogy

    wrong = samples - right
    gained = betaln(right + 0.5, wrong + 0.5) - betaln(0.5, 0.5)
    wealth = gained - xlogy(right, _GRID) - xlog1py(wrong, -_GRID)
    inside = np.flatnonzero(wealth < -np.log(alpha))
    step = float(_GRID[1])
    return max(0.0, float(_GRID[inside[0]]) - step), min(1.0, float(_GRID[inside[-1]]) + step)
