"""The statistics of the gate: what a metric is worth on few samples, and how sure a gain is.

Apart from the decision itself, so that each test can be simulated alone. Both models always answer the same samples;
every test is paired, since samples that are hard for both say nothing about which is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 200


class McNemar(BaseModel):
    """McNemar's test of two classifiers on the same samples, one-sided: is the candidate right more often?"""

    better: int
    """Samples that only the candidate gets right."""
    worse: int
    """Samples that only the champion gets right."""
    p: float
    """Exact binomial p-value: equal models fall below a level at most that often, however few samples there are."""
    mid_p: float
    """The mid-p value: nearer to the level on average, and above it at times. For people."""


class Bounds(BaseModel):
    """A gain in the metric, with the ends of its two one-sided confidence intervals."""

    gain: float
    low: float
    high: float


def score(
    metric: str, truth: NDArray[np.float64], predicted: NDArray[np.float64], variance: float | None = None
) -> float:
    """``accuracy`` of label numbers or ``r2`` of values; arrays of shape [samples].

    Errors are held against ``variance``, that of ``truth`` if None: a slice against that of all samples, since right
    answers that are nearly alike would make any error huge.
    """
    if metric == "accuracy":
        return float((truth == predicted).mean())
    return float(1 - ((truth - predicted) ** 2).mean() / _variance(truth, variance))


def mcnemar(truth: NDArray[np.float64], candidate: NDArray[np.float64], champion: NDArray[np.float64]) -> McNemar:
    """Compare label numbers [samples] by the samples on which exactly one model is right.

    McNemar 1947; exact form: under equal models each such sample is a fair coin. Mid-p: Fagerland, Lydersen and Laake
    2013, doi:10.1186/1471-2288-13-91.
    """
    from scipy.stats import binom, binomtest

    good, former = candidate == truth, champion == truth
    better, worse = int((good & ~former).sum()), int((former & ~good).sum())
    if better + worse == 0:
        return McNemar(better=0, worse=0, p=1.0, mid_p=1.0)
    p = float(binomtest(better, better + worse, 0.5, alternative="greater").pvalue)
    return McNemar(
        better=better, worse=worse, p=p, mid_p=max(p - 0.5 * float(binom.pmf(better, better + worse, 0.5)), 0.0)
    )


def gain_bounds(
    metric: str,
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    confidence: float,
    resamples: int,
    seed: int,
    variance: float | None = None,
) -> Bounds:
    """The gain of the candidate, with a lower and an upper bound that each hold with about ``confidence``.

    Arrays [samples]; ``variance`` as in :func:`score`. Paired percentile bootstrap of the mean gain (Efron and
    Tibshirani 1993, chapter 13).
    """
    gains = sample_gains(metric, truth, candidate, champion, variance)
    low, high = np.quantile(bootstrap_means(gains, resamples, seed), [1 - confidence, confidence])
    return Bounds(gain=float(gains.mean()), low=float(low), high=float(high))


def sample_gains(
    metric: str,
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    variance: float | None = None,
) -> NDArray[np.float64]:
    """What each sample adds to the gain in the metric, float64 [samples]: their mean is the gain.

    A gain in R² is the mean difference of squared errors over the variance of the right answers, or ``variance``.
    """
    if metric == "accuracy":
        return np.asarray((candidate == truth).astype(np.float64) - (champion == truth))
    return np.asarray(((truth - champion) ** 2 - (truth - candidate) ** 2) / _variance(truth, variance))


def bootstrap_means(gains: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of draws of samples with replacement: float64 [resamples].

    How often each value is drawn is multinomial. Classifiers have three values, -1, 0 and 1, so that is drawn for them
    and not the samples one by one.
    """
    rng = np.random.default_rng(seed)
    values, counts = np.unique(gains, return_counts=True)
    if len(values) <= 3:
        drawn = rng.multinomial(len(gains), counts / len(gains), size=resamples)
        return np.asarray(drawn @ values / len(gains))
    chunks = [min(_CHUNK, resamples - start) for start in range(0, resamples, _CHUNK)]
    return np.concatenate([gains[rng.integers(len(gains), size=(rows, len(gains)))].mean(axis=1) for rows in chunks])


def _variance(truth: NDArray[np.float64], known: float | None) -> float:
    return max(float(truth.var()) if known is None else known, 1e-12)


def sign_flip(gains: NDArray[np.float64], resamples: int, seed: int) -> float:
    """One-sided p-value of ``gains`` [samples] against models that could change places: Fisher's randomisation test.

    Then every gain is as likely to have the other sign; the p-value is the share of sign patterns, the one at hand
    included, whose mean is no lower. Its level holds on few samples and with heavy tails. On gains of -1, 0 and 1 it is
    McNemar's exact test.
    """
    moved = gains[gains != 0]
    if len(moved) == 0:
        return 1.0
    least = moved.sum() - 1e-12 * np.abs(moved).sum()
    rng = np.random.default_rng(seed)
    reached = 1
    for start in range(0, resamples, _CHUNK):
        signs = rng.integers(0, 2, size=(min(_CHUNK, resamples - start), len(moved)), dtype=np.int8) * 2 - 1
        reached += int((signs @ moved >= least).sum())
    return reached / (resamples + 1)
