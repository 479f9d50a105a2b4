"""What is measured of a sample: numbers to be ranked, by functions that are fixed before the first new sample comes.

A score that learned from the new samples would spoil the law of the ranks; these know a part of the reference that is
not ranked again, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]

#: A reference must have this many ranked samples: a rank among fewer is never rare.
LEAST_REFERENCE = 20
#: Principal directions of embeddings that are followed one by one.
_DIRECTIONS = 6
#: What is relatively smaller comes from rounding, which depends on how many rows are scored at once.
_NOISE = 1e-6
#: Rows that the directions are fitted on, at most.
_FITTED = 2000

#: Rows [samples, width] -> scores float64 [samples, scores].
Scores = Callable[["Rows"], "Rows"]


class SmallReference(BadInput):
    """A reference has too few samples to test anything against it."""


class WrongWidth(BadInput):
    """Samples do not have as many values as the reference."""


class BrokenReference(BadInput):
    """Reference embeddings hold something that is not a number."""


@dataclass(frozen=True)
class Measured:
    """A way to score rows, and the reference's own scores."""

    scores: Scores
    width: int
    reference: NDArray[np.float64]
    """float64 [samples, scores]."""
    fixed: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """What ``scores`` learned from the reference: to be kept with it, see :func:`measured_again`."""


def measured_again(fixed: Mapping[str, NDArray[Any]], ranked: Rows, labels: Sequence[str] | None) -> Measured:
    """What was measured before, with ``ranked`` [samples, scores] to rank among; ``labels`` where answers are."""
    if "axes" in fixed:
        return Measured(_directions(fixed), len(fixed["centre"]), ranked, fixed)
    return Measured(_same if labels is None else _indicators(len(labels)), 1, ranked)


def _same(rows: Rows) -> Rows:
    return rows


def _indicators(labels: int) -> Scores:
    """One column for each label, and one for any other."""
    known = np.arange(labels + 1)

    def scores(rows: Rows) -> Rows:
        return np.asarray(rows == known, dtype=np.float64)

    return scores


def of_values(reference: NDArray[np.float64]) -> Measured:
    """Score a number (a column, a confidence, a residual) by itself: [samples] or [samples, 1]."""
    rows = as_rows(reference, 1)
    _enough(len(rows))
    return Measured(_same, 1, rows)


def of_labels(reference: Sequence[str], labels: Sequence[str]) -> Measured:
    """Score a predicted label by an indicator of each label, and one of any other; rows are of ``places``."""
    _enough(len(reference))
    scores = _indicators(len(labels))
    return Measured(scores, 1, scores(places(reference, labels)))


def places(answers: Sequence[str], labels: Sequence[str]) -> Rows:
    """Each answer's place among ``labels``, or the place after the last: float64 [samples, 1]."""
    known = {label: place for place, label in enumerate(labels)}
    return np.asarray([[known.get(answer, len(known))] for answer in answers], dtype=np.float64).reshape(-1, 1)


def of_embeddings(reference: NDArray[np.float32], seed: int) -> Measured:
    """Score embeddings [samples, features] by principal directions, the distance within them and what is left over.

    One half of the reference, drawn by ``seed``, fixes the directions; the other is what new samples are ranked among.

    Raises:
        SmallReference: fewer than twice ``LEAST_REFERENCE`` samples.
        BrokenReference: a value is not finite.
    """
    rows = np.asarray(reference, dtype=np.float64)
    _enough(len(rows) // 2)
    if not np.isfinite(rows).all():
        raise BrokenReference(f"{len(rows)} reference embeddings hold values that are not finite: leave those out")
    order = np.random.default_rng(seed).permutation(len(rows))
    half = len(rows) // 2
    fixed = _fitted(rows[order[: min(half, _FITTED)]])
    scores = _directions(fixed)
    return Measured(scores, rows.shape[1], scores(rows[order[half:]]), fixed)


def _fitted(fitted: Rows) -> dict[str, NDArray[Any]]:
    """Centre [features], scale [directions] and principal directions [features, directions]."""
    centre = fitted.mean(axis=0)
    _, spread, axes = np.linalg.svd(fitted - centre, full_matrices=False)
    count = min(_DIRECTIONS, int((spread > _NOISE * spread[0]).sum()))
    scale = np.maximum(spread[:count] / np.sqrt(len(fitted)), 1e-12)
    return {"centre": centre, "scale": scale, "axes": axes[:count].T.copy()}


def _directions(fixed: Mapping[str, NDArray[Any]]) -> Scores:
    centre, scale, chosen = fixed["centre"], fixed["scale"], fixed["axes"]

    def scores(rows: Rows) -> Rows:
        with np.errstate(invalid="ignore", over="ignore"):  # such values rank above all others
            moved = rows - centre
            along = moved @ chosen
            within = ((along / scale) ** 2).sum(axis=1)
            whole = (moved**2).sum(axis=1)
            beyond = whole - (along**2).sum(axis=1)
            beyond[beyond < _NOISE * whole] = 0
            return np.column_stack([along, within, beyond]).astype(np.float32).astype(np.float64)

    return scores


def as_rows(values: NDArray[np.float64], width: int) -> Rows:
    """Values as float64 [samples, width].

    Raises:
        WrongWidth: they have another width.
    """
    rows = np.asarray(values, dtype=np.float64)
    rows = rows.reshape(-1, 1) if rows.ndim == 1 and width == 1 else rows
    if rows.ndim != 2 or rows.shape[1] != width:
        raise WrongWidth(f"samples of shape {rows.shape} do not fit a reference of width {width}: check the columns")
    return rows


def _enough(count: int) -> None:
    if count < LEAST_REFERENCE:
        raise SmallReference(f"a reference with {count} ranked samples is too small, {LEAST_REFERENCE} are needed")
