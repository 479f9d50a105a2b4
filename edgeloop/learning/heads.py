"""The head of an image model: a linear softmax on frozen backbone features, fitted in seconds and kilobytes small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.models import LinearHead
from edgeloop.errors import BadInput
from edgeloop.learning.trainers.weights import final_weights
from edgeloop.samples.service import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

#: Logit of a label that no training sample has: its probability is below one in a million million.
_ABSENT = -60.0
#: Half precision has relative steps of 2**-11 from here up, and absolute ones below.
_NORMAL = 2.0**-14
#: The share of inputs, at most, whose weights may all lie below that.
_FAINT = 0.01


class TooFewClasses(BadInput):
    """A classifier cannot be fitted on samples of one label."""


class UnknownLabel(BadInput):
    """A training sample has a label that the service does not have."""


def fit_head(
    features: NDArray[np.float32],
    truth: Sequence[str],
    labels: Sequence[str],
    config: Head,
    seed: int,
    *,
    sample_weight: NDArray[np.float64] | None = None,
    balanced: bool = False,
) -> LinearHead:
    """Fit multinomial logistic regression on standardised features and fold the scaling into the weights.

    Args:
        features: float32 [samples, features].
        truth: the label of each sample.
        labels: all labels of the service, in the order of the head's outputs. One that no sample has yet gets an
            output that never wins; the first sample of it makes it a label like the others.
        config: regularisation and iterations.
        seed: makes the fit repeatable.
        sample_weight: how much each sample counts, float64 [samples], see ``importance_weights``; scaled to mean one,
            so that the regularisation keeps its meaning.
        balanced: give all labels that occur the same total weight.

    Raises:
        TooFewClasses: fewer than two labels occur in ``truth``.
        UnknownLabel: one of ``truth`` is not in ``labels``.
        UnusableWeights: see ``final_weights``.
    """
    from sklearn.linear_model import LogisticRegression

    present = labels_present(truth, labels)
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0
    weights = final_weights(truth, sample_weight, balanced)
    model = LogisticRegression(C=config.c, max_iter=config.max_iter, tol=config.tol, random_state=seed)
    model.fit((features - mean) / scale, [present.index(t) for t in truth], sample_weight=weights)
    coef, intercept = model.coef_, model.intercept_
    if len(present) == 2:
        coef, intercept = np.vstack([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    coef = coef / scale
    return fold(coef, np.asarray([b - row @ mean for row, b in zip(coef, intercept, strict=True)]), present, labels)


def labels_present(truth: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The labels that occur in ``truth``, in the order of ``labels``.

    Raises:
        TooFewClasses: there are fewer than two.
        UnknownLabel: one is not in ``labels``.
    """
    seen = set(truth)
    unknown = sorted(seen - set(labels))
    if unknown:
        raise UnknownLabel(f"training samples have the labels {unknown}: add them to the service, or leave them out")
    present = [label for label in labels if label in seen]
    if len(present) < 2:
        raise TooFewClasses(f"training samples have only the labels {present}: label samples of at least two classes")
    return present


def fold(
    coef: NDArray[np.float64], intercept: NDArray[np.float64], present: Sequence[str], labels: Sequence[str]
) -> LinearHead:
    """A head of all ``labels`` from the logits of those ``present``, see ``placed``."""
    return LinearHead(*placed(coef, intercept, present, labels), tuple(labels))


def placed(
    coef: NDArray[np.float64], intercept: NDArray[np.float64], present: Sequence[str], labels: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights [inputs, labels] and bias [labels] from ``coef`` [present, inputs] and ``intercept`` [present].

    A label that is not present has a fixed logit far below zero. It wins nowhere if the largest of the others is
    never negative, as where they sum to zero. Weights are :func:`rounded`.
    """
    weights = np.zeros((coef.shape[1], len(labels)))
    bias = np.full(len(labels), _ABSENT)
    for row, label in enumerate(present):
        column = list(labels).index(label)
        weights[:, column] = coef[row]
        bias[column] = intercept[row]
    return rounded(weights), bias.astype(np.float32)


def rounded(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights [inputs, labels] as numbers of half precision, which travel to nodes in half the bytes.

    A logit changes by some thousandths, less than by one other sample. Where inputs are scaled so that weights
    are out of the range of half precision they stay float32. Rounded here, so that what is judged is what is served.
    """
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    largest = np.abs(weights).max(axis=1, initial=0)
    faint = np.mean((largest > 0) & (largest < _NORMAL)) if len(largest) else 0.0
    fits = bool(np.isfinite(half).all()) and faint <= _FAINT
    return half.astype(np.float32) if fits else weights.astype(np.float32)
