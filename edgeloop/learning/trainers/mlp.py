"""A small network on features: a yardstick of what a bent boundary would be worth. Nodes run linear heads only."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.learning.trainers.protocol import Lesson

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Network:
    """A fitted network on standardised features."""

    labels: tuple[str, ...]
    present: tuple[int, ...]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    model: Any
    """sklearn.neural_network.MLPClassifier of the labels that occur."""

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """float64 [n, labels]; a label without samples has none."""
        out = np.zeros((len(features), len(self.labels)))
        out[:, self.present] = self.model.predict_proba((features - self.centre) / self.scale)
        return out


@dataclass(frozen=True)
class SmallNetwork:
    """The trainer: one hidden layer of ``hidden`` rectified units, Adam, ``epochs`` passes at most."""

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
    ) -> Network:
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
        present = tuple(lesson.labels.index(label) for label in lesson.present)
        return Network(lesson.labels, present, centre, scale, model)
