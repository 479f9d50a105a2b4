"""Nearest class mean: the smallest thing that learns from features, and forgets nothing (Mensink et al. 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import LinearHead
from edgeloop.learning.trainers.protocol import Lesson

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class NearestMean:
    """Classes as round clouds of one width: logit ``(x.mu - |mu|^2 / 2) / s^2``, the nearest mean is the answer.

    ``s^2`` is the variance of a feature within its class; it sets how sure the answers are, never which they are. All
    labels count the same a priori; ``balanced`` lets them have the same say in ``s^2`` too.
    """

    balanced: bool = False

    def fit(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> LinearHead:
        """Fit on float32 [samples, features]; ``seed`` changes nothing. Raises what ``Lesson`` does."""
        lesson = Lesson(features, truth, labels, sample_weight, self.balanced)
        means = lesson.means()
        errors = ((lesson.rows - means[lesson.classes]) ** 2).mean(axis=1)
        variance = max(float(np.average(errors, weights=lesson.weights)), 1e-6)
        return lesson.head(means / variance, -(means**2).sum(axis=1) / 2 / variance)
