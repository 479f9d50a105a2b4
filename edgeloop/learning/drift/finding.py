"""What a drift test says: the course of its evidence, and a finding once that crossed its threshold.

A finding is a reason to evaluate and to retrain. Nothing in it can promote a model.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["inputs", "embeddings", "predictions", "confidence", "accuracy"]


class Point(BaseModel):
    """The state of a test at one look."""

    model_config = ConfigDict(frozen=True)

    samples: int
    """Samples tested so far."""
    statistic: float
    """log10 of the wealth of a bet against "nothing has changed"."""
    at: datetime | None = None


class Band(BaseModel):
    """Audited accuracy at one look: the share that was right, and a confidence sequence for it."""

    model_config = ConfigDict(frozen=True)

    samples: int
    low: float
    accuracy: float
    high: float


class Course(BaseModel):
    """All looks at one quantity: what is plotted, whether anything was found or not."""

    model_config = ConfigDict(frozen=True)

    quantity: str
    kind: Kind
    threshold: float
    """The statistic that is a finding: log10(1/alpha) of this quantity."""
    points: tuple[Point, ...] = ()
    bands: tuple[Band, ...] = ()
    """Of audited accuracy only."""
    floor: float | None = None
    """Of audited accuracy only: what it must not fall below."""


class Finding(BaseModel):
    """A quantity that has drifted. It starts an evaluation and a retrain, never a promotion."""

    model_config = ConfigDict(frozen=True)

    quantity: str
    kind: Kind
    statistic: float
    """log10 of the wealth at the sample that crossed the threshold."""
    threshold: float
    samples: int
    """Samples tested until then."""
    since: int
    """Samples before the change, as estimated (Page's cumulative sum of the bet that won most)."""
    since_at: datetime | None = None
    """Time of the first look after ``since``, where looks have times."""
    course: Course

    @property
    def reason(self) -> str:
        """One line for people."""
        return (
            f"{self.kind} drifted: {self.quantity}, evidence 10^{self.statistic:.1f} to 1 (10^{self.threshold:.1f} is"
            f" needed) after {self.samples} samples, since about sample {self.since}"
        )
