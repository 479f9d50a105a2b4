"""The three linear heads that a service may ask for, behind one call, so that a method can choose among them.

``ridge`` is the learner that all methods share; ``linear`` and ``slda`` are what ``trainer.head.kind`` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.learner import Learner, RidgeHead
from edgeloop.errors import EdgeloopError
from edgeloop.learning.heads import fit_head
from edgeloop.learning.trainers.slda import StreamingLda
from edgeloop.samples.service import Head

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop.clients.models import LinearHead

KINDS = ("ridge", "linear", "slda")
#: Logistic regression iterates: beyond this product of samples, features and labels it takes longer than it is worth.
MOST_FOR_LINEAR = 1_000_000
_LINEAR = Head(c=0.03)
_SHRINKAGE = 0.1


class UnknownKind(EdgeloopError):
    """No head of this kind is compared."""


def affordable(features: NDArray[np.float32], labels: int) -> tuple[str, ...]:
    """The kinds worth trying on these features, [samples, features], for so many labels."""
    return tuple(kind for kind in KINDS if kind != "linear" or features.size * labels <= MOST_FOR_LINEAR)


def fit_kind(
    kind: str,
    learner: Learner,
    features: NDArray[np.float32],
    truth: NDArray[np.int64],
    weights: NDArray[np.float32],
) -> RidgeHead:
    """Fit a head of ``kind`` on features [samples, features], the last of which is 1, and label numbers [samples].

    Raises:
        UnknownKind: there is none of this name.
    """
    if kind == "ridge":
        return learner.fit(features, truth, weights)
    labels = [str(number) for number in range(learner.labels)]
    names = [labels[number] for number in truth.tolist()]
    wide = weights.astype(np.float64)
    if kind == "linear":
        return _as_ridge(fit_head(features[:, :-1], names, labels, _LINEAR, 0, sample_weight=wide))
    if kind == "slda":
        return _as_ridge(StreamingLda(_SHRINKAGE).fit(features[:, :-1], names, labels, wide))
    raise UnknownKind(f"unknown kind of head {kind!r}; known: {', '.join(KINDS)}")


def _as_ridge(head: LinearHead) -> RidgeHead:
    """The same map; its bias becomes the weight of the feature that is always 1."""
    return RidgeHead(np.vstack([head.weights, head.bias]).astype(np.float32), 1.0)
