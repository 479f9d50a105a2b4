"""Labels for unlabelled neighbours: label spreading over a graph of what one bucket sent (Zhou et al., NIPS 2003).

The answer of the graph and that of a head err differently; where they agree, few answers are wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.methods.closed import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NEIGHBOURS = 5
_KEPT = 0.9
"""Part of a node's answer that its neighbours give."""
_WIDTH = 0.1
"""Difference in cosine over which the weight of an edge falls to 1/e."""


def spread_labels(
    labelled: NDArray[np.float32], truth: NDArray[np.int64], unlabelled: NDArray[np.float32], labels: int
) -> NDArray[np.float64]:
    """Shares of each label, float64 [unlabelled, labels], rows sum to one.

    Args:
        labelled: float32 [n, features], one or more.
        truth: label numbers [n].
        unlabelled: float32 [m, features].
        labels: how many there are.
    """
    rows = np.vstack([labelled, unlabelled])
    flow = _graph(unit(rows - rows.mean(axis=0)))
    known = np.zeros((len(rows), labels))
    known[np.arange(len(truth)), truth] = 1
    known /= np.maximum(known.sum(axis=0), 1)  # a frequent label must not flood the graph
    found = np.linalg.solve(np.eye(len(rows)) - _KEPT * flow, known)[len(truth) :] + 1e-9
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _graph(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Symmetrically normalised weights of each row's nearest neighbours, [rows, rows]."""
    alike = (rows @ rows.T).astype(np.float64)
    np.fill_diagonal(alike, -np.inf)
    count = min(_NEIGHBOURS, len(rows) - 1)
    near = np.argpartition(-alike, count - 1, axis=1)[:, :count]
    weights = np.zeros_like(alike)
    np.put_along_axis(weights, near, np.exp((np.take_along_axis(alike, near, axis=1) - 1) / _WIDTH), axis=1)
    weights = np.maximum(weights, weights.T)
    degrees = np.sqrt(weights.sum(axis=1) + 1e-12)
    return np.asarray(weights / degrees[:, None] / degrees)
