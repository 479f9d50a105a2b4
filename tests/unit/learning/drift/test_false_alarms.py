"""However often one looks, a stream without drift raises a finding at most as often as was allowed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from edgeloop.learning.drift.accuracy import AccuracyMonitor, confidence_sequence
from edgeloop.learning.drift.betting import Wealth
from edgeloop.learning.drift.monitors import TwoSample
from edgeloop.learning.drift.ranks import Ranks
from edgeloop.learning.drift.scores import of_embeddings, of_labels, of_values, places
from edgeloop.learning.drift.watch import DriftWatch, Window

STREAMS = 200
LOOKS = 200
ALPHA = 0.05
#: Three standard errors above the rate, for this many streams.
MOST = STREAMS * (ALPHA + 3 * (ALPHA * (1 - ALPHA) / STREAMS) ** 0.5)


def test_numbers_without_drift() -> None:
    alarms = 0
    for seed in range(STREAMS):
        rng = np.random.default_rng([1, seed])
        monitor = TwoSample("x", "inputs", of_values(rng.normal(size=100)), ALPHA, seed)
        alarms += any(monitor.look(rng.normal(size=3)) for _ in range(LOOKS))
    assert 0 < alarms <= MOST, "no alarm at all would mean that the level is not used"


def test_labels_without_drift() -> None:
    labels = ("a", "b", "c")
    alarms = 0
    for seed in range(STREAMS):
        rng = np.random.default_rng([2, seed])
        monitor = TwoSample("y", "predictions", of_labels(list(rng.choice(labels, 60)), labels), ALPHA, seed)
        alarms += any(monitor.look(places(list(rng.choice(labels, 1)), labels)) for _ in range(LOOKS))
    assert alarms <= MOST


def test_embeddings_without_drift() -> None:
    alarms = 0
    for seed in range(STREAMS):
        rng = np.random.default_rng([3, seed])
        reference = rng.standard_t(3, size=(60, 12)).astype(np.float32)
        monitor = TwoSample("e", "embeddings", of_embeddings(reference, seed), ALPHA, seed)
        alarms += any(monitor.look(rng.standard_t(3, size=(1, 12))) for _ in range(LOOKS))
    assert alarms <= MOST


def test_all_quantities_together_without_drift() -> None:
    alarms = 0
    for seed in range(STREAMS):
        rng = np.random.default_rng([4, seed])
        reference = Window(columns={n: rng.normal(size=50) for n in "ab"}, confidence=rng.uniform(size=50))
        watch = DriftWatch(reference, alpha=ALPHA, floor=0.8, seed=seed)
        for _ in range(LOOKS):
            new = {n: rng.normal(size=1) for n in "ab"}
            right = (rng.random(1) < 0.8).astype(float)
            watch.look(Window(columns=new, confidence=rng.uniform(size=1), right=right))
        alarms += bool(watch.findings)
    assert alarms <= MOST


def test_accuracy_at_its_floor_raises_no_more_findings_than_allowed() -> None:
    alarms = 0
    for seed in range(STREAMS):
        rng = np.random.default_rng([5, seed])
        monitor = AccuracyMonitor("accuracy", 0.85, ALPHA)
        alarms += any(monitor.look((rng.random(3) < 0.85).astype(float)) for _ in range(LOOKS))
    assert alarms <= MOST


def test_the_confidence_sequence_holds_at_every_look() -> None:
    missed = 0
    for seed in range(STREAMS):
        rights = np.cumsum(np.random.default_rng([6, seed]).random(3 * LOOKS) < 0.9)[2::3]
        ends = [confidence_sequence(int(right), 3 * (i + 1), ALPHA) for i, right in enumerate(rights)]
        missed += not all(low <= 0.9 <= high for low, high in ends)
    assert missed <= MOST


def test_ranks_of_an_exchangeable_stream_are_uniform_and_independent_though_the_reference_is_small() -> None:
    ranks = []
    for seed in range(400):
        rng = np.random.default_rng([8, seed])
        known, new = (rng.integers(4, size=(count, 1)).astype(np.float64) for count in (21, 30))
        ranks.append(Ranks(known, seed).add(new))
    found = np.stack(ranks)[:, :, 0]
    assert kstest(found.ravel(), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]) < 3 / (400 * 29) ** 0.5


def test_wealth_of_fair_bets_has_mean_one() -> None:
    rng = np.random.default_rng(9)
    totals = []
    for _ in range(4000):
        wealth = Wealth(2)
        totals.append([wealth.play(1 + np.asarray([0.5, -0.5]) * rng.choice([-1, 1])) for _ in range(5)][-1])
    assert np.mean(totals) == pytest.approx(1, abs=4 * float(np.std(totals)) / 4000**0.5)


def test_a_gambler_is_not_ruined_by_a_long_quiet_time() -> None:
    rng, wealth = np.random.default_rng(10), Wealth(1)
    for sign in rng.choice([-1, 1], 3000):
        wealth.play(1 + np.asarray([0.9]) * sign)
    assert wealth.total >= 3000**-0.5 * 0.99
