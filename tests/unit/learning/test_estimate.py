"""Estimates of the field are right on average where the plain mean is not, and their intervals hold the truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.learning.estimate import (
    ImpossibleProbability,
    NothingToEstimate,
    audit_accuracy,
    weighted_accuracy,
    wilson,
)

AUDIT = 0.1


def fleet(rng: Any, n: int = 4000) -> tuple[Any, Any, float]:
    """What reaches the store of ``n`` inputs: all hard ones and one easy one in ten; and the true accuracy.

    Of the hard fifth 60 % of the answers are right, of the rest 95 %.
    """
    hard = rng.random(n) < 0.2
    right = rng.random(n) < np.where(hard, 0.6, 0.95)
    chance = np.where(hard, 1.0, AUDIT)
    sent = rng.random(n) < chance
    return right[sent], chance[sent], 0.2 * 0.6 + 0.8 * 0.95


def test_weighting_is_right_on_average_where_the_plain_mean_is_not() -> None:
    rng = np.random.default_rng(0)
    weighted, plain = [], []
    for _ in range(300):
        correct, chance, truth = fleet(rng)
        weighted.append(weighted_accuracy(correct, chance, resamples=2).value)
        plain.append(correct.mean())
    error = np.std(weighted) / np.sqrt(300)
    assert abs(np.mean(weighted) - truth) < 3 * error
    assert abs(np.mean(plain) - truth) > 0.1 > 30 * error


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = {"wilson": 0, "hajek": 0}
    for seed in range(300):
        correct, chance, truth = fleet(rng, 1500)
        one = weighted_accuracy(correct, chance, 0.9, resamples=300, seed=seed)
        held["hajek"] += one.low <= truth <= one.high
        audit = audit_accuracy(rng.random(80) < truth, 0.9)
        held["wilson"] += audit.low <= truth <= audit.high
    for hits in held.values():
        assert abs(hits / 300 - 0.9) < 0.055


def test_samples_of_one_session_count_as_little_more_than_one() -> None:
    """Ten copies of each of 40 answers: drawn alone they look like 400, drawn together they do not."""
    right = np.arange(40) % 4 > 0
    copies, names = np.repeat(right, 10), np.repeat([f"s{n}" for n in range(40)], 10)
    alone = weighted_accuracy(copies, np.full(400, 0.5))
    together = weighted_accuracy(copies, np.full(400, 0.5), groups=list(names))
    once = weighted_accuracy(right, np.full(40, 0.5))
    assert alone.value == together.value == once.value == 0.75
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert together.high - together.low == pytest.approx(once.high - once.low, rel=0.15)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 1)), min_size=1, max_size=40), st.integers(0, 9))
def test_an_estimate_is_a_share_within_its_interval(drawn: list[tuple[bool, float]], seed: int) -> None:
    correct = np.asarray([right for right, _ in drawn])
    chance = np.asarray([p for _, p in drawn])
    found = weighted_accuracy(correct, chance, resamples=50, seed=seed)
    assert 0 <= found.low <= found.high <= 1
    assert 0 <= found.value <= 1
    assert 1 - 1e-9 <= found.effective <= len(drawn) + 1e-9
    assert weighted_accuracy(correct, chance, resamples=50, seed=seed) == found
    audit = audit_accuracy(correct)
    assert 0 <= audit.low <= audit.value <= audit.high <= 1


@pytest.mark.parametrize("right", [True, False])
def test_all_alike_is_not_certain(right: bool) -> None:
    found = weighted_accuracy(np.full(30, right), np.full(30, 0.2))
    assert found.value == right
    assert 0.05 < found.high - found.low < 0.2
    assert (found.low, found.high) == pytest.approx(wilson(float(right), 30, 0.95))


def test_wilsons_interval_is_the_published_one() -> None:
    """Newcombe 1998, table I: 81 of 263, and 0 of 20."""
    assert wilson(81 / 263, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0, 0.1611), abs=5e-5)


def test_nothing_labelled_is_no_estimate() -> None:
    with pytest.raises(NothingToEstimate, match="no labelled audit samples"):
        audit_accuracy(np.zeros(0, dtype=bool))
    with pytest.raises(NothingToEstimate, match="no labelled samples"):
        weighted_accuracy(np.zeros(0, dtype=bool), np.zeros(0))


@pytest.mark.parametrize("chance", [0.0, -0.1, 1.5, np.nan])
def test_an_impossible_probability_is_refused(chance: float) -> None:
    with pytest.raises(ImpossibleProbability, match=r"of labelled sample 1 is not in \(0, 1\]"):
        weighted_accuracy(np.ones(2, dtype=bool), np.asarray([0.5, chance]))
