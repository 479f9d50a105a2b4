"""The gate as a whole, played many times: seldom a false promotion, mostly a true one. The seeds are fixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeloop.learning.gate import decide
from edgeloop.samples.judging import Gate

ROUNDS = 500
#: Samples on which the true accuracy of a simulated model is measured.
MANY = 5000


def verdict(truth: Any, candidate: Any, champion: Any, seed: int, metric: str = "accuracy", **changes: Any) -> str:
    return decide(Gate(**changes), metric, truth, candidate, champion, {}, seed=seed).verdict


def disagreeing(rng: Any, n: int, share: float, gain: float = 0.0) -> tuple[Any, Any, Any]:
    """Right answers and two models' that disagree on a share of samples; the first is right ``gain`` more often."""
    draw = rng.random(n)
    first, second = (share + gain) / 2, (share - gain) / 2
    only_champion = (draw >= first) & (draw < first + second)
    both_wrong = draw > 0.95
    return np.zeros(n), (only_champion | both_wrong).astype(float), ((draw < first) | both_wrong).astype(float)


@pytest.mark.parametrize(("n", "share"), [(30, 0.3), (120, 0.2), (300, 0.4), (1000, 0.08)])
def test_candidates_that_are_no_better_are_promoted_at_most_once_in_a_hundred_rounds(n: int, share: float) -> None:
    rng = np.random.default_rng(n)
    passed = [verdict(*disagreeing(rng, n, share), seed) == "pass" for seed in range(ROUNDS)]
    assert sum(passed) <= 0.01 * ROUNDS


def test_a_true_gain_of_three_points_is_promoted_four_times_in_five() -> None:
    """1,000 gate samples, models that disagree on 8 %; the exact power of McNemar's test at 0.01 is 0.835."""
    rng = np.random.default_rng(7)
    passed = [verdict(*disagreeing(rng, 1000, 0.08, 0.03), seed) == "pass" for seed in range(ROUNDS)]
    assert sum(passed) >= 0.8 * ROUNDS


def clouds(rng: Any, n: int) -> tuple[Any, Any]:
    """Features [n, 6] and labels 0 or 1 of two overlapping classes."""
    labels = rng.integers(0, 2, n)
    return rng.normal(0, 1, (n, 6)) + 0.45 * labels[:, np.newaxis], labels


def fitted(features: Any, labels: Any) -> Callable[[Any], Any]:
    """A least-squares classifier."""
    design = np.c_[features, np.ones(len(features))]
    weights = np.linalg.lstsq(design, labels - 0.5, rcond=None)[0]
    return lambda rows: (np.c_[rows, np.ones(len(rows))] @ weights > 0).astype(float)


def flipped(rng: Any, features: Any, labels: Any) -> Any:
    """10 to 40 % of the labels are turned round."""
    wrong = rng.random(len(labels)) < rng.uniform(0.1, 0.4)
    return features, np.where(wrong, 1 - labels, labels)


def shuffled(rng: Any, features: Any, labels: Any) -> Any:
    return features[rng.permutation(len(features))], labels


def resampled(rng: Any, features: Any, labels: Any) -> Any:
    """The champion's samples once more, with replacement: labels and all."""
    again = rng.integers(len(labels), size=len(labels))
    return features[again], labels[again]


@pytest.mark.parametrize("spoil", [flipped, shuffled, resampled])
def test_trained_on_spoilt_data_no_worse_model_is_promoted(spoil: Callable[..., Any]) -> None:
    """Small fitted models; whether a promotion is false is measured on samples that the gate never sees."""
    rng = np.random.default_rng(11)
    unseen, right = clouds(rng, MANY)
    false = 0
    for seed in range(ROUNDS):
        lesson = clouds(rng, 200)
        champion, candidate = fitted(*lesson), fitted(*spoil(rng, *lesson))
        rows, truth = clouds(rng, 300)
        if verdict(truth.astype(float), candidate(rows), champion(rows), seed) == "pass":
            false += (candidate(unseen) == right).mean() <= (champion(unseen) == right).mean()
    assert false <= 0.01 * ROUNDS


@pytest.mark.parametrize("tail", ["normal", "heavy", "outliers"])
def test_numbers_with_far_off_values_are_seldom_promoted_falsely(tail: str) -> None:
    """Two regressors of the same quality. A level of 0.01 shows up to 11 times in 500 rounds (three deviations)."""
    rng = np.random.default_rng(13)

    def errors(n: int) -> Any:
        if tail == "heavy":
            return rng.standard_t(3, n)
        return rng.normal(0, 1, n) * np.where(rng.random(n) < (0.02 if tail == "outliers" else 0), 10, 1)

    passed = 0
    for seed in range(ROUNDS):
        truth, shared = rng.normal(0, 1, (2, 60))
        both = truth + shared + errors(60), truth + shared + errors(60)
        passed += verdict(truth, *both, seed, metric="r2", resamples=400) == "pass"
    assert passed <= 11


def test_equal_candidates_seldom_look_harmful() -> None:
    rng = np.random.default_rng(17)
    harmful = 0
    for seed in range(ROUNDS):
        truth, candidate, champion = disagreeing(rng, 300, 0.1)
        slices = {"old": np.arange(300) < 100}
        harmful += decide(Gate(resamples=400), "accuracy", truth, candidate, champion, slices, seed=seed).harmful
    assert harmful <= 0.08 * ROUNDS
