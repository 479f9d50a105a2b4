"""A bound that is looked at on every tick holds at every tick, and still says something."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.fleet.rollouts.bounds import interval, shift

ALPHA = 0.05
RUNS = 2000
LOOKS = (5, 10, 20, 30, 40, 60, 80, 110, 150, 200, 300, 400, 600, 800, 1200)


def test_nothing_is_known_before_the_first_trial() -> None:
    assert interval(0, 0, ALPHA) == (0.0, 1.0)
    assert shift([0, 0], [1, 1], ALPHA) == (0.0, 1.0)


@pytest.mark.parametrize("case", [(-1, 3, 0.1), (4, 3, 0.1), (1, 3, 0.0), (1, 3, 1.0)])
def test_what_is_no_rate_is_refused(case: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="no rate of"):
        interval(*case)


def test_histograms_of_other_bins_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 bins"):
        shift([1, 2, 3], [1, 2], ALPHA)


@given(st.integers(0, 3000), st.integers(0, 3000), st.floats(1e-6, 0.5))
def test_the_interval_holds_the_rate_seen_and_is_symmetric(hits: int, misses: int, alpha: float) -> None:
    low, high = interval(hits, hits + misses, alpha)
    seen = hits / (hits + misses) if hits + misses else 0.5
    assert 0 <= low <= seen <= high <= 1
    mirrored = interval(misses, hits + misses, alpha)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-9)


@given(st.integers(0, 500), st.integers(1, 500))
def test_a_smaller_alpha_is_a_wider_interval(hits: int, misses: int) -> None:
    low, high = interval(hits, hits + misses, 0.01)
    narrow = interval(hits, hits + misses, 0.2)
    assert low <= narrow[0] + 1e-12
    assert high >= narrow[1] - 1e-12


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9])
def test_the_truth_is_inside_at_all_looks_of_nearly_all_runs(rate: float) -> None:
    drawn = np.random.default_rng(7).random((RUNS, LOOKS[-1])) < rate
    counts = drawn.cumsum(axis=1)[:, [n - 1 for n in LOOKS]]
    table = {
        (n, k): interval(k, n, ALPHA) for n, column in zip(LOOKS, counts.T, strict=True) for k in {*map(int, column)}
    }
    outside = sum(
        any(not table[n, int(k)][0] <= rate <= table[n, int(k)][1] for n, k in zip(LOOKS, run, strict=True))
        for run in counts
    )
    # Three standard errors above alpha: a bound for one look only is outside in three to five times as many.
    assert outside / RUNS <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / RUNS) ** 0.5


def test_it_says_something_after_a_few_hundred_answers() -> None:
    assert interval(0, 150, ALPHA)[1] < 0.05
    assert interval(30, 100, ALPHA)[0] > 0.15
    low, high = interval(5000, 10_000, ALPHA)
    assert high - low < 0.04


def test_the_shift_is_within_its_bound_at_all_looks_of_nearly_all_runs() -> None:
    generator = np.random.default_rng(11)
    before, after = np.full(10, 0.1), np.array([0.02] * 5 + [0.18] * 5)
    truth, outside = 0.4, 0
    for _ in range(RUNS):
        old, new = generator.multinomial(200, before, size=6).cumsum(axis=0), generator.multinomial(200, after, 6)
        looks = [shift(a.tolist(), b.tolist(), ALPHA) for a, b in zip(old, new.cumsum(axis=0), strict=True)]
        outside += any(abs(seen - truth) > off for seen, off in looks)
    assert outside / RUNS <= ALPHA


def test_a_shift_of_everything_is_found() -> None:
    distance, off = shift([0] * 9 + [400], [400] + [0] * 9, ALPHA)
    assert distance == 1.0
    assert off < 0.5
    same, _ = shift([5] * 10, [50] * 10, ALPHA)
    assert same == pytest.approx(0)
