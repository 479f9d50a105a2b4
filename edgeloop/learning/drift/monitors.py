"""Sequential tests of one quantity each, fed sample by sample in the order of arrival.

A monitor depends on its reference, its seed and the samples alone, so that one that was lost is had again by feeding
it the same samples from the start. One that is kept goes on where it was: what it learned of the reference, what it
ranks among, and its gambler's capital are numbers in arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeloop.learning.drift.betting import Wealth
from edgeloop.learning.drift.finding import Course, Finding, Kind
from edgeloop.learning.drift.ranks import Ranks
from edgeloop.learning.drift.record import KeptRecord, Record
from edgeloop.learning.drift.scores import Measured, as_rows, measured_again

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Slopes of the bets on a rank u: a sample's factor is 1 + slope * (u - 1/2). Positive for every rank.
_SLOPES = np.asarray([-1.9, -1.0, 1.0, 1.9])


class Monitor(Protocol):
    """A sequential test of one quantity."""

    @property
    def finding(self) -> Finding | None: ...
    @property
    def course(self) -> Course: ...
    @property
    def width(self) -> int: ...
    def check(self, rows: NDArray[np.float64]) -> NDArray[np.float64]: ...
    def look(self, rows: NDArray[np.float64], at: datetime | None = None) -> Finding | None: ...
    def keep(self) -> tuple[KeptRecord, dict[str, NDArray[Any]]]: ...


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

    def keep(self) -> tuple[KeptRecord, dict[str, NDArray[Any]]]:
        """All that must be kept to go on later; see :meth:`restore`."""
        return self._record.keep(), {**self._wealth.keep(), **self._measured.fixed, "known": self._ranks.known}

    @classmethod
    def restore(
        cls, kept: KeptRecord, arrays: Mapping[str, NDArray[Any]], seed: int, labels: Sequence[str] | None
    ) -> TwoSample:
        """The monitor that was kept; ``labels`` where answers are ranked."""
        fixed = {name: arrays[name] for name in ("centre", "scale", "axes") if name in arrays}
        made = cls.__new__(cls)
        made._record, made._wealth = Record.restore(kept), Wealth.restore(arrays)
        made._measured = measured_again(fixed, arrays["known"], labels)
        made._ranks = Ranks(arrays["known"], seed, made._wealth.samples)
        return made

    @property
    def finding(self) -> Finding | None:
        return self._record.finding

    @property
    def course(self) -> Course:
        return self._record.course

    @property
    def width(self) -> int:
        return self._measured.width

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
