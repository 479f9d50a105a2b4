"""Which of many vectors are worth a label: typical ones while labels are few, else uncertain ones unlike each other.

Plain functions of arrays, so that each can be tested without samples. Whoever wants estimates must not use these picks:
they have no probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeloop.learning.threads import one_thread

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: As in TypiClust: neighbours that typicality looks at, most clusters, and the least size of a cluster that counts.
NEIGHBOURS = 20
MOST_CLUSTERS = 500
LEAST_SIZE = 5
#: The most uncertain ones among which unlike ones are sought, per label that may be asked for.
BEAM = 10
_CHUNK = 1024


def typical(open_vectors: NDArray[np.float32], known: NDArray[np.float32], count: int, seed: int) -> list[int]:
    """Positions of the densest points of the clusters that no label covers yet, in order.

    TypiClust (Hacohen, Dekel and Weinshall 2022, arXiv 2202.02794): k-means with as many clusters as there will be
    labels; the least covered cluster first, among those the largest; in it the point nearest to its neighbours.

    Args:
        open_vectors: float32 [n, features] to pick from.
        known: float32 [m, features] that have labels.
        count: most picks.
        seed: of k-means.
    """
    count = min(count, len(open_vectors))
    if not count:
        return []
    everything = np.concatenate([known, open_vectors])
    distinct = len(np.unique(everything, axis=0))
    home = _clusters(everything, min(len(known) + count, MOST_CLUSTERS, distinct), seed)
    sizes = np.bincount(home)
    covered = np.bincount(home[: len(known)], minlength=len(sizes))
    left = {
        int(c): _by_typicality(open_vectors, np.flatnonzero(home[len(known) :] == c)) for c in set(home[len(known) :])
    }
    found: list[int] = []
    while len(found) < count:
        best = min(left, key=lambda c: (sizes[c] < LEAST_SIZE, covered[c], -sizes[c], c))
        found.append(left[best].pop(0))
        covered[best] += 1
        if not left[best]:
            del left[best]
    return found


def _clusters(points: NDArray[np.float32], count: int, seed: int) -> NDArray[np.int32]:
    """Cluster of each point; on one thread, since several add up in any order and round differently."""
    from sklearn.cluster import KMeans

    with one_thread():
        return np.asarray(KMeans(count, n_init=1, random_state=seed).fit_predict(points))


def _by_typicality(points: NDArray[np.float32], members: NDArray[np.intp]) -> list[int]:
    """Members of one cluster, those with the nearest neighbours first."""
    from sklearn.neighbors import NearestNeighbors

    if len(members) < 3:
        return [int(m) for m in members]
    near = min(NEIGHBOURS, len(members) - 1)
    distances, _ = NearestNeighbors(n_neighbors=near).fit(points[members]).kneighbors()
    return [int(m) for m in members[np.argsort(distances.mean(axis=1), kind="stable")]]


def uncertain(open_vectors: NDArray[np.float32], doubts: NDArray[np.float64], count: int, seed: int) -> list[int]:
    """Positions of the most doubtful points that are unlike each other, the most doubtful first.

    Cluster-Margin's thought (Citovsky et al. 2021, arXiv 2107.14263) with k-means: the ``BEAM * count`` points of
    greatest doubt fall into ``count`` clusters, and each gives its most doubtful one.

    Args:
        open_vectors: float32 [n, features] to pick from.
        doubts: float64 [n], the more the less sure.
        count: most picks.
        seed: of k-means.
    """
    count = min(count, len(open_vectors))
    if not count:
        return []
    beam = np.argsort(-doubts, kind="stable")[: BEAM * count]
    points = open_vectors[beam]
    home = _clusters(points, min(count, len(np.unique(points, axis=0))), seed)
    best = np.unique(home, return_index=True)[1]  # the first of each cluster is its most doubtful
    others = np.setdiff1d(np.arange(len(beam)), best)[: count - len(best)]
    return [int(beam[at]) for at in np.sort(np.concatenate([best, others]))]


def unlike(open_vectors: NDArray[np.float32], known: NDArray[np.float32], count: int) -> list[int]:
    """Positions of points that are far from each other and from ``known``, in order.

    Greedy k-center (Sener and Savarese 2018, arXiv 1708.00489): each time the point farthest from what is covered.

    Args:
        open_vectors: float32 [n, features] to pick from.
        known: float32 [m, features] that have labels.
        count: most picks.
    """
    gaps = nearest_distances(open_vectors, known)
    found: list[int] = []
    for _ in range(min(count, len(open_vectors))):
        found.append(int(np.argmax(gaps)))
        gaps = np.minimum(gaps, np.linalg.norm(open_vectors - open_vectors[found[-1]], axis=1))
        gaps[found] = -1.0
    return found


def nearest_distances(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of each point to the nearest centre, float64 [points]; infinite where there is none."""
    nearest = np.full(len(points), np.inf)
    squares = (points.astype(np.float64) ** 2).sum(axis=1)
    for start in range(0, len(centres), _CHUNK):
        part = centres[start : start + _CHUNK].astype(np.float64)
        away = squares[:, None] - 2 * points @ part.T + (part**2).sum(axis=1)
        nearest = np.minimum(nearest, np.sqrt(np.maximum(away, 0)).min(axis=1))
    return nearest
