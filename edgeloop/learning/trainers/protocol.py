"""What every trainer on features is: a fit that ends in a head that nodes run.

All are deterministic: the same features, labels, weights and seed give the same bytes, on one machine and number of
threads; rounds keep them to one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeloop.clients.models import Head, HiddenHead, LinearHead
from edgeloop.errors import BadInput
from edgeloop.learning.heads import fold, labels_present, placed
from edgeloop.learning.trainers.weights import final_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HeadTrainer(Protocol):
    """Fits a head that nodes run. The arguments are those of ``fit_head``."""

    def fit(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> Head: ...


class UnusableFeatures(BadInput):
    """Features do not fit their labels, or hold something that is not a number."""


class Lesson:
    """Features with the number of each one's label among those that occur, and weights of mean one."""

    def __init__(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None,
        balanced: bool,
    ) -> None:
        """Check what a trainer is given.

        Raises:
            TooFewClasses: fewer than two labels occur.
            UnknownLabel: one of ``truth`` is not in ``labels``.
            UnusableFeatures: a value is not finite, or their number is not that of the labels.
            UnusableWeights: see ``final_weights``.
        """
        if features.ndim != 2 or len(features) != len(truth) or not np.isfinite(features).all():
            raise UnusableFeatures(
                f"features {features.shape} with {len(truth)} labels: give one finite row of features a label"
            )
        self.labels = tuple(labels)
        self.present = labels_present(truth, labels)
        self.rows = features.astype(np.float64)
        place = {label: number for number, label in enumerate(self.present)}
        self.classes = np.asarray([place[t] for t in truth])
        given = final_weights(truth, sample_weight, balanced)
        self.weights = np.ones(len(truth)) if given is None else given

    @property
    def masses(self) -> NDArray[np.float64]:
        """Weight of each label that occurs, float64 [present]."""
        return np.bincount(self.classes, self.weights, minlength=len(self.present)).astype(np.float64)

    def means(self) -> NDArray[np.float64]:
        """Weighted mean of each label that occurs, float64 [present, features]."""
        sums = np.zeros((len(self.present), self.rows.shape[1]))
        for number in range(len(self.present)):
            mine = self.classes == number
            sums[number] = self.weights[mine] @ self.rows[mine]
        return np.asarray(sums / self.masses[:, np.newaxis])

    def head(self, coef: NDArray[np.float64], intercept: NDArray[np.float64]) -> LinearHead:
        """Logits ``rows @ coef.T + intercept`` of the labels that occur, as a head of all labels.

        Logits are centred, which changes no probability: the largest is never negative, so that a label without
        samples, whose logit is far below, wins nowhere.
        """
        return fold(coef - coef.mean(axis=0), intercept - intercept.mean(), self.present, self.labels)

    def hidden(
        self,
        first: NDArray[np.float32],
        first_bias: NDArray[np.float32],
        coef: NDArray[np.float64],
        intercept: NDArray[np.float64],
        seed: int | None = None,
    ) -> HiddenHead:
        """The like on a hidden layer ``relu(rows @ first + first_bias)``; see ``HiddenHead`` for ``seed``."""
        centred = coef - coef.mean(axis=0)
        second, bias = placed(centred, intercept - intercept.mean(), self.present, self.labels)
        return HiddenHead(first, first_bias, second, bias, self.labels, seed)
