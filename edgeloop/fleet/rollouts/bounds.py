"""Bounds that hold at every look, because a rollout looks at its nodes on every tick.

An interval for a fixed number of answers is wrong sooner or later if one looks often enough. These are confidence
sequences: the chance that the truth is outside at any look, ever, is at most ``alpha``. A mixture over all rates is a
martingale under the true one, and Ville's inequality bounds how high it may ever rise.

Sources: H. Robbins, "Statistical methods related to the law of the iterated logarithm", 1970; S. R. Howard,
A. Ramdas, J. McAuliffe, J. Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

#: Halvings of an interval of rates: far below what a count can tell.
_STEPS = 50
#: Answers at which the bound on shares of a histogram is tightest.
_TUNED = 200.0


def interval(successes: int, trials: int, alpha: float) -> tuple[float, float]:
    """Rates in [0, 1] that ``successes`` of ``trials`` do not contradict; all of them before the first trial.

    A rate is out once the beta-binomial mixture (Jeffreys' prior) is ``1 / alpha`` times as likely.

    Raises:
        ValueError: not ``0 <= successes <= trials``, or ``alpha`` not in (0, 1).
    """
    if not 0 <= successes <= trials or not 0 < alpha < 1:
        raise ValueError(f"no rate of {successes} in {trials} at {alpha}")
    failures = trials - successes
    mixture = _log_beta(0.5 + successes, 0.5 + failures) - _log_beta(0.5, 0.5) + math.log(alpha)
    middle = successes / trials if trials else 0.5

    def is_out(rate: float) -> bool:
        return mixture > _log_power(rate, successes) + _log_power(1 - rate, failures)

    low = _edge(0.0, middle, is_out) if successes else 0.0
    high = _edge(1.0, middle, is_out) if failures else 1.0
    return low, high


def shift(before: Sequence[int], after: Sequence[int], alpha: float) -> tuple[float, float]:
    """Total variation between two histograms of the same bins, and by how much it may be off; 1 without counts.

    It is the largest difference of the share of any set of bins; the bound of Howard et al. (their normal mixture, for
    values of variance at most 1/4) is held for each set of each histogram.
    """
    if len(before) != len(after):
        raise ValueError(f"histograms of {len(before)} and {len(after)} bins cannot be compared")
    total_before, total_after = sum(before), sum(after)
    if not total_before or not total_after:
        return 0.0, 1.0
    pairs = zip(before, after, strict=True)
    distance = sum(abs(b / total_before - a / total_after) for b, a in pairs) / 2
    sets = max(1, 2 ** (len(before) - 1) - 1)
    off = _off(total_before, alpha / 2 / sets) + _off(total_after, alpha / 2 / sets)
    return distance, min(1.0, off)


def _off(trials: int, alpha: float) -> float:
    variance, tuned = trials / 4, _TUNED / 4
    return math.sqrt((variance + tuned) * math.log((variance + tuned) / (tuned * alpha**2))) / trials


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _log_power(rate: float, count: int) -> float:
    if not count:
        return 0.0
    return count * math.log(rate) if rate > 0 else -math.inf


def _edge(outside: float, inside: float, is_out: Callable[[float], bool]) -> float:
    """The end of the interval between a rate that is out and the likeliest one; always the outer of the two."""
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        if is_out(middle):
            outside = middle
        else:
            inside = middle
    return outside
