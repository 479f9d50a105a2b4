"""The tests of the gate are the textbook's, and hold their level."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.learning.gate_tests import bootstrap_means, gain_bounds, mcnemar, sample_gains, score, sign_flip

COUNTS = st.integers(0, 30)


def answers(better: int, worse: int, same: int) -> Any:
    """Right answers (all 0), a candidate's and a champion's, with so many right alone and as many of both right."""
    candidate = np.repeat([0.0, 1.0, 0.0], [better, worse, same])
    champion = np.repeat([1.0, 0.0, 0.0], [better, worse, same])
    return np.zeros(better + worse + same), candidate, champion


@settings(max_examples=60, deadline=None)
@given(COUNTS, COUNTS, COUNTS)
def test_mcnemar_is_the_tail_of_a_fair_coin(better: int, worse: int, same: int) -> None:
    found = mcnemar(*answers(better, worse, same))
    n = better + worse
    tail = sum(comb(n, k) for k in range(better, n + 1)) / 2**n
    assert (found.better, found.worse) == (better, worse)
    assert found.p == pytest.approx(tail)
    assert found.mid_p == pytest.approx(tail - comb(n, better) / 2**n / 2 if n else 1)


@pytest.mark.parametrize(("better", "worse"), [(9, 2), (20, 10), (5, 5), (3, 8)])
def test_on_classifiers_the_sign_flip_test_is_mcnemars(better: int, worse: int) -> None:
    three = answers(better, worse, 40)
    p = mcnemar(*three).p
    assert sign_flip(sample_gains("accuracy", *three), 20_000, 0) == pytest.approx(p, abs=4 * np.sqrt(p / 20_000))


def test_no_gain_at_all_is_chance() -> None:
    assert sign_flip(np.zeros(50), 100, 0) == 1


def test_no_number_of_draws_shows_that_there_is_no_chance_at_all() -> None:
    assert sign_flip(np.ones(60), 100, 0) == 1 / 101


@pytest.mark.parametrize("draw", ["normal", "heavy", "one outlier"])
def test_the_sign_flip_test_holds_its_level_on_heavy_tails(draw: str) -> None:
    """Under equal models p falls below any level at most that often: 1,000 sets of 25, within three deviations."""
    rng = np.random.default_rng(6)
    p = []
    for number in range(1000):
        gains = rng.standard_t(2, 25) if draw == "heavy" else rng.normal(0, 1, 25)
        if draw == "one outlier":
            gains[0] *= 100
        p.append(sign_flip(gains, 400, number))
    for level in (0.01, 0.05, 0.2):
        assert (np.asarray(p) <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / 1000)
    assert (np.asarray(p) <= 0.2).mean() > 0.1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.sampled_from(["accuracy", "r2"]), st.integers(5, 80))
def test_the_mean_of_the_gains_is_the_gain_in_the_metric(seed: int, metric: str, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth, one, two = rng.integers(0, 4, (3, n)).astype(float)
    truth[:2] = 0, 1
    gain = score(metric, truth, one) - score(metric, truth, two)
    assert sample_gains(metric, truth, one, two).mean() == pytest.approx(gain)
    bounds = gain_bounds(metric, truth, one, two, 0.9, 200, seed)
    assert bounds.gain == pytest.approx(gain)
    assert bounds.low <= bounds.high


def test_draws_are_paired() -> None:
    """Both models are measured on the same draw: where they always agree, the gain does not vary at all."""
    assert not bootstrap_means(np.zeros(200), 500, 0).any()


def test_drawing_the_counts_is_drawing_the_samples() -> None:
    gains = np.repeat([-1.0, 0.0, 1.0], [20, 150, 30])
    drawn = bootstrap_means(gains, 20_000, 0)
    assert drawn.mean() == pytest.approx(gains.mean(), abs=4 * gains.std() / np.sqrt(200 * 20_000))
    assert drawn.std() == pytest.approx(gains.std() / np.sqrt(200), rel=0.03)
    many = bootstrap_means(gains + np.linspace(0, 1e-9, 200), 20_000, 0)
    assert np.quantile(drawn, [0.01, 0.99]) == pytest.approx(np.quantile(many, [0.01, 0.99]), abs=0.006)
