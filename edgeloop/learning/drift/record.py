"""The looks of one test, and its finding: what is plotted, and what is kept of it between two looks."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from edgeloop.errors import BadInput
from edgeloop.learning.drift.betting import Wealth
from edgeloop.learning.drift.finding import Band, Course, Finding, Kind, Point

T = TypeVar("T")
#: Looks of a course that are kept, at most; then every second one goes. The last one stays.
MOST_POINTS = 200


class WrongLevel(BadInput):
    """A rate of false alarms is not between 0 and 1."""


class KeptRecord(BaseModel):
    """A :class:`Record` as it is kept."""

    model_config = ConfigDict(frozen=True)

    course: Course
    crossed: tuple[float, int, int] | None = None
    """log10 of the wealth, samples and since when, at the sample that crossed the threshold."""
    finding: Finding | None = None
    """Without its course, which is ``course``."""


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
        self._points, self._bands = _thinned(self._points), _thinned(self._bands)
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

    def keep(self) -> KeptRecord:
        """All that must be kept to go on later; see :meth:`restore`."""
        finding = self.finding.model_copy(update={"course": self._empty}) if self.finding else None
        return KeptRecord(course=self.course, crossed=self._crossed, finding=finding)

    @classmethod
    def restore(cls, kept: KeptRecord) -> Record:
        """The record that was kept; the course of its finding is now all that was looked at since."""
        course = kept.course
        made = cls(course.quantity, course.kind, 10**-course.threshold, course.floor)
        made._empty = course.model_copy(update={"points": (), "bands": ()})
        made._points, made._bands, made._crossed = list(course.points), list(course.bands), kept.crossed
        made.finding = kept.finding.model_copy(update={"course": course}) if kept.finding else None
        return made


def _thinned(looks: list[T]) -> list[T]:
    return looks if len(looks) < MOST_POINTS else looks[(len(looks) + 1) % 2 :: 2]
