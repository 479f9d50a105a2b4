"""The figures of a stream and their intervals, from who answered what.

With R[t][j] the accuracy on test j after round t: final ACC is the mean of the last row, BWT is mean(R[T][j] - R[j][j])
and FWT mean(R[j-1][j]) less chance (Lopez-Paz and Ranzato 2017), forgetting is mean(max_t R[t][j] - R[T][j])
(Chaudhry et al. 2018), near-future is mean R[t][t+1]. Intervals are a paired bootstrap: seeds, then groups of each test
set, are drawn with replacement, the same for all methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.protocol import Run
from edgeloop.bench.stream.split import Part, SplitStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWS = 1000
#: Below this distance from frozen to joint there is nothing to recover, and the fraction says nothing.
LEAST_SPAN = 0.02


@dataclass(frozen=True)
class Figures:
    """One figure over the draws, [draws + 1, methods]; the first row is what was measured, without a draw."""

    values: dict[str, NDArray[np.float64]]
    matrix: NDArray[np.float64]
    """R as measured, mean over seeds, [rounds, buckets, methods]."""


def figures(splits: Sequence[SplitStream], runs: Sequence[Sequence[Run]]) -> Figures:
    """All figures of all methods; ``runs[seed][method]`` belongs to ``splits[seed]``."""
    rng = np.random.default_rng(13)
    by_seed = [_drawn_matrices(split, of_seed, rng) for split, of_seed in zip(splits, runs, strict=True)]
    matrices = _over_seeds([m for m, _ in by_seed], rng)
    rng = np.random.default_rng(14)
    pools = _over_seeds([p for _, p in by_seed], rng)
    values = of_matrix(matrices, 1 / len(splits[0].labels))
    return Figures({"prequential": pools.mean(axis=1), **values}, matrices[0])


def of_matrix(matrix: NDArray[np.float64], chance: float) -> dict[str, NDArray[np.float64]]:
    """Figures of R, [draws, rounds, buckets, methods]: each [draws, methods]."""
    last = matrix[:, -1]
    own = np.stack([matrix[:, j, j] for j in range(matrix.shape[2])], axis=1)
    before = np.stack([matrix[:, j - 1, j] for j in range(1, matrix.shape[2])], axis=1)
    return {
        "near_future": before.mean(axis=1),
        "final": last.mean(axis=1),
        "bwt": (last - own)[:, :-1].mean(axis=1),
        "fwt": before.mean(axis=1) - chance,
        "forgetting": (matrix[:, :-1].max(axis=1) - last)[:, :-1].mean(axis=1),
    }


def recovered(final: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.float64] | None:
    """(method - frozen) / (joint - frozen) of final ACC, [draws, methods]; None where there is nothing to recover."""
    frozen, joint = final[:, names.index("frozen")], final[:, names.index("joint")]
    if joint[0] - frozen[0] < LEAST_SPAN:
        return None
    span = joint - frozen
    return np.asarray((final - frozen[:, None]) / np.where(np.abs(span) < 1e-9, np.nan, span)[:, None])


def _drawn_matrices(
    split: SplitStream, runs: Sequence[Run], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """R [draws + 1, rounds, buckets, methods] and prequential accuracy [draws + 1, rounds, methods] of one seed."""
    columns = []
    for number, bucket in enumerate(split.buckets):
        hits = np.stack([row[number] for run in runs for row in run.deployed], axis=1)
        columns.append(_resampled(bucket.test, hits, rng).reshape(DRAWS + 1, len(runs), -1))
    matrix = np.stack(columns, axis=-1).transpose(0, 2, 3, 1)
    pools = [
        _resampled(bucket.pool, np.stack([run.prequential[t] for run in runs], axis=1), rng)
        for t, bucket in enumerate(split.buckets[1:])
    ]
    return matrix, np.stack(pools, axis=1)


def _resampled(part: Part, hits: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float64]:
    """Accuracy of each column of hits [samples, columns] as measured, then on draws of groups: [draws + 1, columns]."""
    _, member = np.unique(part.groups, return_inverse=True)
    groups = int(member.max()) + 1
    right = np.zeros((groups, hits.shape[1]))
    np.add.at(right, member, hits)
    counts = np.bincount(member).astype(np.float64)
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=DRAWS)
    weights = np.vstack([np.ones(groups), drawn]).astype(np.float64)
    return np.asarray((weights @ right) / (weights @ counts)[:, None])


def _over_seeds(by_seed: Sequence[NDArray[np.float64]], rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean over seeds, of which each draw takes as many as there are with replacement; no two share an inner draw."""
    stacked = np.stack(by_seed)
    count = len(stacked)
    taken = rng.integers(count, size=(DRAWS, count))
    inner = (np.arange(DRAWS)[:, None] + np.arange(count) * (DRAWS // count)) % DRAWS + 1
    return np.concatenate([stacked[:, 0].mean(axis=0)[None], stacked[taken, inner].mean(axis=1)])


def interval(drawn: NDArray[np.float64]) -> tuple[float, float, float]:
    """(as measured, 2.5 % quantile, 97.5 % quantile) of one column [draws + 1]."""
    low, high = np.nanquantile(drawn[1:], [0.025, 0.975])
    return float(drawn[0]), float(low), float(high)
