"""A small network on features: one hidden layer, for classes that no plane tells apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import HiddenHead
from edgeloop.learning.trainers.protocol import Lesson

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SmallNetwork:
    """The trainer: one hidden layer of ``hidden`` rectified units, Adam, ``epochs`` passes at most.

    Features are standardised for the fit, and the scaling is folded into the first layer.
    """

    hidden: int = 64
    alpha: float = 1e-3
    """Weight of the squared norm of the weights."""
    epochs: int = 60
    balanced: bool = False

    def fit(
        self,
        features: NDArray[np.float32],
        truth: Sequence[str],
        labels: Sequence[str],
        sample_weight: NDArray[np.float64] | None = None,
        seed: int = 0,
    ) -> HiddenHead:
        """Fit on float32 [samples, features]. Raises what ``Lesson`` does."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        lesson = Lesson(features, truth, labels, sample_weight, self.balanced)
        centre, scale = lesson.rows.mean(axis=0), lesson.rows.std(axis=0)
        scale[scale < 1e-6] = 1.0
        model = MLPClassifier((self.hidden,), alpha=self.alpha, max_iter=self.epochs, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of passes is what is asked for
            model.fit((lesson.rows - centre) / scale, lesson.classes, sample_weight=lesson.weights)
        first = model.coefs_[0] / scale[:, np.newaxis]
        bias = model.intercepts_[0] - centre @ first
        coef, intercept = _by_label(model.coefs_[1].T, model.intercepts_[1])
        return lesson.hidden(first.astype(np.float32), bias.astype(np.float32), coef, intercept)


def _by_label(
    coef: NDArray[np.float64], intercept: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits of both labels where the network has one output, as it does for two."""
    if len(coef) > 1:
        return coef, intercept
    return np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
