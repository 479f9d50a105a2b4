"""How right the fleet is, estimated from the few answers that were labelled, with intervals.

Nodes send what they are unsure of, so the plain mean over labelled samples speaks of hard inputs, not of the fleet. Two
estimates do not: the audit slice, which is drawn whatever the model says, and all labelled samples with each weighted
by one over the probability with which it was chosen. The second uses more samples and is mostly the narrower.

The probability must be that of being labelled: see ``labelled_probability`` where not all samples that were sent were
labelled.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from edgeloop.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_CHUNK = 200


class NothingToEstimate(BadInput):
    """There are no labelled samples to estimate from."""


class ImpossibleProbability(BadInput):
    """A sample that is there cannot have had this probability of being chosen."""


class Estimate(BaseModel):
    """A share with a two-sided interval."""

    value: float
    low: float
    high: float
    confidence: float
    samples: int
    effective: float
    """How many samples of equal weight would say as much (Kish 1965)."""
    method: Literal["wilson", "hajek"]


def audit_accuracy(correct: NDArray[np.bool_], confidence: float = 0.95) -> Estimate:
    """Accuracy over all inputs from audited answers, ``correct`` [samples], which were drawn uniformly.

    Raises:
        NothingToEstimate: no samples.
    """
    n = len(correct)
    if n == 0:
        raise NothingToEstimate("no labelled audit samples to estimate from: label some that selected_by names audit")
    low, high = wilson(float(correct.mean()), n, confidence)
    return Estimate(
        value=float(correct.mean()),
        low=low,
        high=high,
        confidence=confidence,
        samples=n,
        effective=n,
        method="wilson",
    )


def weighted_accuracy(
    correct: NDArray[np.bool_],
    probability: NDArray[np.float64],
    confidence: float = 0.95,
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Accuracy over all inputs from answers that were chosen with unequal probabilities.

    Hájek's ratio estimator, the sum of ``correct / probability`` over the sum of ``1 / probability`` (Hájek 1971;
    Särndal, Swensson and Wretman 1992, section 5.7), with a percentile bootstrap interval over whole groups. Where all
    answers are right, or all wrong, a bootstrap sees no spread; the interval is then Wilson's at the effective size.

    Args:
        correct: whether each labelled answer is right, [samples].
        probability: of each being chosen and labelled, [samples], in (0, 1].
        confidence: of the two-sided interval.
        groups: what samples of one session or device are drawn together; each alone if None.
        resamples: bootstrap draws.
        seed: makes the bootstrap repeatable.

    Raises:
        NothingToEstimate: no samples.
        ImpossibleProbability: a probability outside (0, 1].
    """
    if len(correct) == 0:
        raise NothingToEstimate("no labelled samples to estimate from: label some")
    _check(probability)
    weight = 1 / probability
    value = float((correct * weight).sum() / weight.sum())
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    if correct.all() or not correct.any():
        low, high = wilson(value, effective, confidence)
    else:
        low, high = _bootstrap(correct * weight, weight, confidence, groups, resamples, seed)
    return Estimate(
        value=value,
        low=low,
        high=high,
        confidence=confidence,
        samples=len(correct),
        effective=effective,
        method="hajek",
    )


def labelled_probability(
    chosen: NDArray[np.float64], audit: float, of_audit: float, of_rules: float
) -> NDArray[np.float64]:
    """With what probability each sample was chosen and labelled, [samples].

    A sample comes by the audit, which draws first, or else by a rule. Where people label one kind more often than the
    other, weighting by ``selection_probability`` alone counts hard inputs too little, or too much.

    Args:
        chosen: ``selection_probability`` of each, [samples].
        audit: share of all inputs that the audit draws.
        of_audit: share of audited samples that are labelled.
        of_rules: the same of those that a rule chose.
    """
    by_audit = np.minimum(chosen, audit)
    return np.asarray(by_audit * of_audit + (chosen - by_audit) * of_rules, dtype=np.float64)


def wilson(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share seen in ``n`` draws (Wilson 1927), two-sided."""
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def _check(probability: NDArray[np.float64]) -> None:
    wrong = ~((probability > 0) & (probability <= 1))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ImpossibleProbability(
            f"selection probability {probability[at]} of labelled sample {at} is not in (0, 1]: leave the sample out"
        )


def _bootstrap(
    top: NDArray[np.float64],
    weight: NDArray[np.float64],
    confidence: float,
    groups: Sequence[str] | None,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Quantiles of the ratio over draws of whole groups with replacement."""
    members = np.arange(len(top)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    tops, weights = np.bincount(members, top), np.bincount(members, weight)
    rng = np.random.default_rng(seed)
    ratios: list[NDArray[np.float64]] = []
    for start in range(0, resamples, _CHUNK):
        drawn = rng.integers(len(tops), size=(min(_CHUNK, resamples - start), len(tops)))
        ratios.append(tops[drawn].sum(axis=1) / weights[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(ratios), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
