"""All quantities of a service under one rate of false alarms.

Each of k quantities is tested at alpha / k, so that the chance that any of them ever raises a finding without drift is
at most alpha (Bonferroni; it holds for quantities that depend on each other, and over all looks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from edgeloop.errors import BadInput
from edgeloop.learning.drift.accuracy import AccuracyMonitor
from edgeloop.learning.drift.finding import Course, Finding, Kind
from edgeloop.learning.drift.monitors import Monitor, TwoSample
from edgeloop.learning.drift.record import KeptRecord
from edgeloop.learning.drift.scores import WrongWidth, of_embeddings, of_labels, of_values, places
from edgeloop.samples.records import digest, hexdigest

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NothingToWatch(BadInput):
    """A reference has no quantity at all."""


@dataclass(frozen=True)
class Window:
    """Samples in the order of arrival; every part is optional and tested alone. The reference is one too.

    Reference and new samples must have been chosen in the same way: by the uniform audit, not for being hard.
    """

    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Tabular inputs by name, [samples] each; not-a-number where missing."""
    embeddings: NDArray[np.float32] | None = None
    """[samples, features], all of one backbone."""
    predictions: Sequence[str] | NDArray[np.float64] | None = None
    """Labels of a classifier, or values [samples] of a regressor."""
    confidence: NDArray[np.float64] | None = None
    """[samples]."""
    right: NDArray[np.float64] | None = None
    """Audited answers [audited]: 1 right, 0 wrong. Of new samples only."""


class KeptWatch(BaseModel):
    """A :class:`DriftWatch` as it is kept, without its arrays."""

    level: float
    """Rate of false alarms of each quantity."""
    labels: tuple[str, ...] = ()
    seed: int = 0
    monitors: dict[str, KeptRecord] = {}


class DriftWatch:
    """Tests of every part of a reference, and of audited accuracy where there is a floor."""

    def __init__(
        self,
        reference: Window,
        alpha: float = 0.01,
        floor: float | None = None,
        labels: Sequence[str] = (),
        seed: int = 0,
        quantities: int | None = None,
    ) -> None:
        """Fix what is tested.

        Args:
            reference: samples of the time when the champion was right.
            alpha: the most often that a service without drift ever raises a finding, over all quantities and looks.
            floor: the accuracy that audited answers must keep, see ``accuracy_floor``; None tests none.
            labels: of a classifier.
            seed: makes splits and ties repeatable.
            quantities: how many there will be, where some :meth:`join` later; as many as there are now if None.

        Raises:
            NothingToWatch: the reference is empty and there is no floor.
            SmallReference: a part of the reference is too small.
        """
        names = [*_parts(reference), *(["accuracy"] if floor is not None else [])]
        if not names and quantities is None:
            raise NothingToWatch("a reference without columns, embeddings, predictions or confidence: give one of them")
        self._level = alpha / max(len(names), quantities or 0)
        self._labels, self._seed = tuple(labels), seed
        self._monitors: dict[str, Monitor] = {}
        self.join(reference)
        if floor is not None:
            self.join_accuracy(floor)

    def join(self, reference: Window) -> None:
        """Test from now on what ``reference`` has, too. It must be of quantities that were counted from the start.

        Raises:
            SmallReference: a part of the reference is too small.
        """
        self._monitors |= {
            name: self._test(name, part, self._level, _seed_of(self._seed, name))
            for name, part in _parts(reference).items()
        }

    def join_accuracy(self, floor: float) -> None:
        """Test from now on whether accuracy stays above ``floor``; it must have been counted from the start."""
        self._monitors["accuracy"] = AccuracyMonitor("accuracy", floor, self._level)

    def take_accuracy(self, former: DriftWatch) -> None:
        """Go on with the test of accuracy of ``former``, with its evidence and at its level.

        Raises:
            KeyError: it has none.
        """
        self._monitors["accuracy"] = former._monitors["accuracy"]

    def keep(self) -> tuple[KeptWatch, dict[str, NDArray[Any]]]:
        """All that must be kept to go on later, models and arrays; see :meth:`restore`."""
        kept = {name: monitor.keep() for name, monitor in self._monitors.items()}
        records = {name: record for name, (record, _) in kept.items()}
        arrays = {f"{place}.{key}": a for place, (_, parts) in enumerate(kept.values()) for key, a in parts.items()}
        return KeptWatch(level=self._level, labels=self._labels, seed=self._seed, monitors=records), arrays

    @classmethod
    def restore(cls, kept: KeptWatch, arrays: Mapping[str, NDArray[Any]]) -> DriftWatch:
        """The watch that was kept, as if it had never stopped.

        Raises:
            KeyError: an array is missing.
        """
        made = cls(Window(), alpha=kept.level, labels=kept.labels, seed=kept.seed, quantities=1)
        for place, (name, record) in enumerate(kept.monitors.items()):
            own = {key.partition(".")[2]: a for key, a in arrays.items() if key.startswith(f"{place}.")}
            made._monitors[name] = made._restored(name, record, own)
        return made

    def _restored(self, name: str, record: KeptRecord, arrays: Mapping[str, NDArray[Any]]) -> Monitor:
        if name == "accuracy":
            return AccuracyMonitor.restore(record, arrays)
        labels = self._labels if name == "predictions" and self._labels else None
        return TwoSample.restore(record, arrays, _seed_of(self._seed, name), labels)

    def _test(self, name: str, part: Any, level: float, seed: int) -> Monitor:
        kind: Kind = _KINDS.get(name, "inputs")
        if name == "embeddings":
            return TwoSample(name, kind, of_embeddings(part, seed), level, seed)
        if name == "predictions" and self._labels:
            return TwoSample(name, kind, of_labels(part, self._labels), level, seed)
        return TwoSample(name, kind, of_values(part), level, seed)

    def look(self, window: Window, at: datetime | None = None) -> list[Finding]:
        """Test new samples; return the findings that are new. A part that the window lacks is not tested this time.

        Raises:
            WrongWidth: the window has a part that the reference lacks, or one of another width; nothing was tested.
            Unaudited: see ``AccuracyMonitor``; nothing was tested.
        """
        parts = _parts(window) | ({} if window.right is None else {"accuracy": window.right})
        unknown = sorted(set(parts) - set(self._monitors))
        if unknown:
            raise WrongWidth(f"{', '.join(unknown)} cannot be tested: the reference has only {', '.join(self.names)}")
        rows = {name: self._monitors[name].check(self._encoded(name, part)) for name, part in parts.items()}
        found = [self._monitors[name].look(values, at) for name, values in rows.items()]
        return [one for one in found if one is not None]

    def _encoded(self, name: str, part: Any) -> NDArray[np.float64]:
        if name == "predictions" and self._labels:
            return places(part, self._labels)
        return np.asarray(part, dtype=np.float64)

    @property
    def level(self) -> float:
        """Rate of false alarms of each quantity that joins."""
        return self._level

    @property
    def names(self) -> list[str]:
        return list(self._monitors)

    def width(self, name: str) -> int:
        """Values that a sample has of a quantity.

        Raises:
            KeyError: the quantity is not tested.
        """
        return self._monitors[name].width

    @property
    def findings(self) -> list[Finding]:
        """All findings so far, the earliest first."""
        found = [m.finding for m in self._monitors.values() if m.finding is not None]
        return sorted(found, key=lambda f: f.samples)

    @property
    def courses(self) -> list[Course]:
        return [m.course for m in self._monitors.values()]


_KINDS: dict[str, Kind] = {"embeddings": "embeddings", "predictions": "predictions", "confidence": "confidence"}


def _parts(window: Window) -> dict[str, Any]:
    """What of a window is ranked, by name."""
    parts: dict[str, Any] = {f"input {name}": values for name, values in window.columns.items()}
    rest = {"embeddings": window.embeddings, "predictions": window.predictions, "confidence": window.confidence}
    return parts | {name: part for name, part in rest.items() if part is not None}


def _seed_of(seed: int, name: str) -> int:
    """A seed of each quantity's own, so that adding one changes no other."""
    return int(hexdigest(digest(f"{seed} {name}".encode()))[:8], 16)
