"""The linear heads that a method may choose among: the learner that all share, and two that services may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.learner import Learner, RidgeHead
from edgeloop.clients.models import LinearHead
from edgeloop.learning.trainers.kinds import head_trainer
from edgeloop.samples.service import Head, Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARED = "ridge"
#: By the name in ``trainer.head.kind``, with the settings that suit features of random layers.
OFFERED = {"linear": Head(kind="linear", c=0.03), "slda": Head(kind="slda", shrinkage=0.1)}
#: Logistic regression iterates: beyond this product of samples, features and labels it takes longer than it is worth.
MOST_FOR_LINEAR = 1_000_000


def affordable(features: NDArray[np.float32], labels: int) -> tuple[str, ...]:
    """The kinds worth trying on these features, [samples, features], for so many labels."""
    small = features.size * labels <= MOST_FOR_LINEAR
    return (SHARED, *(kind for kind in OFFERED if kind != "linear" or small))


def fit_kind(
    kind: str,
    learner: Learner,
    features: NDArray[np.float32],
    truth: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> RidgeHead:
    """Fit a head of ``kind`` on features [samples, features], the last of which is 1, and label numbers [samples]."""
    if kind == SHARED:
        return learner.fit(features, truth, weights)
    labels = [str(number) for number in range(learner.labels)]
    names = [labels[number] for number in truth.tolist()]
    trainer = head_trainer(Trainer(head=OFFERED[kind]))
    head = trainer.fit(features[:, :-1], names, labels, weights.astype(np.float64))
    assert isinstance(head, LinearHead)  # both are; so the bias is the weight of the feature that is always 1
    return RidgeHead(np.vstack([head.weights, head.bias]).astype(np.float32), 1.0)
