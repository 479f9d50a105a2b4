"""The head of an image model: a linear softmax on frozen backbone features, fitted in seconds and kilobytes small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import LinearHead
from edgeloop.errors import BadInput
from edgeloop.samples.service import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Bias of a label that no training sample has: its probability is below one in a million million.
_ABSENT = -60.0


class TooFewClasses(BadInput):
    """A classifier cannot be fitted on samples of one label."""


def fit_head(
    features: NDArray[np.float32], truth: Sequence[str], labels: Sequence[str], config: Head, seed: int
) -> LinearHead:
    """Fit multinomial logistic regression on standardised features and fold the scaling into the weights.

    Args:
        features: float32 [samples, features].
        truth: the label of each sample.
        labels: all labels of the service, in the order of the head's outputs.
        config: regularisation and iterations.
        seed: makes the fit repeatable.

    Raises:
        TooFewClasses: fewer than two labels occur in ``truth``.
    """
    from sklearn.linear_model import LogisticRegression

    present = sorted(set(truth), key=list(labels).index)
    if len(present) < 2:
        raise TooFewClasses(f"training samples have only the labels {present}: label samples of at least two classes")
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0
    model = LogisticRegression(C=config.c, max_iter=config.max_iter, tol=config.tol, random_state=seed)
    model.fit((features - mean) / scale, [present.index(t) for t in truth])
    coef, intercept = model.coef_, model.intercept_
    if len(present) == 2:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    weights = np.zeros((features.shape[1], len(labels)))
    bias = np.full(len(labels), _ABSENT)
    for row, label in enumerate(present):
        column = list(labels).index(label)
        weights[:, column] = coef[row] / scale
        bias[column] = intercept[row] - (coef[row] / scale) @ mean
    return LinearHead(weights.astype(np.float32), bias.astype(np.float32), tuple(labels))
