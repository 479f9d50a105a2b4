"""Sedna's way is Sedna's: its filters, its parts, its gate and where its next round starts."""

from __future__ import annotations

import numpy as np

from edgeloop.bench.stream.learner import RidgeHead, make_learner
from edgeloop.bench.stream.methods.sedna import Sedna, SednaEager, SednaRandom, cross_entropy, exceeds, spread
from edgeloop.bench.stream.policy import Batch, Seen
from edgeloop.bench.stream.split import split_stream
from tests.unit.bench.made import made_stream

SPLIT = split_stream(made_stream(900), 0, 900)
LEARNER = make_learner(SPLIT.buckets[0].pool.features, SPLIT.buckets[0].pool.truth, 3, 0)


def test_sednas_filter_is_its_own() -> None:
    sure = np.array([[0.891, 0.109], [0.889, 0.111]])
    assert (cross_entropy(sure) < 0.5).tolist() == [False, True]


def test_sedna_goes_on_from_what_it_trained_last_deployed_or_not() -> None:
    method = Sedna(LEARNER, np.random.default_rng(0))
    pool = SPLIT.buckets[0].pool
    first = method.begin(Batch(0, pool.features, pool.truth, pool.features[:0]))
    batch = Batch(1, pool.features[:20], (pool.truth[:20] + 1) % 3, pool.features[:0])
    one = method.learn(batch, first)
    assert isinstance(one, RidgeHead)
    wanted = LEARNER.fit(batch.features[:16], batch.truth[:16], start=one)
    two = method.learn(batch, first)
    assert isinstance(two, RidgeHead)
    assert np.allclose(two.weights, wanted.weights)


def test_sedna_evaluates_on_the_parts_of_the_six_newest_batches() -> None:
    method = Sedna(LEARNER, np.random.default_rng(0))
    pool = SPLIT.buckets[0].pool
    first = method.begin(Batch(0, pool.features, pool.truth, pool.features[:0]))
    for number in range(8):
        rows = slice(10 * number, 10 * number + 10)
        method.learn(Batch(number + 1, pool.features[rows], pool.truth[rows], pool.features[:0]), first)
    held = np.concatenate([truth for _, truth in method._held])
    assert held.tolist() == [t for number in range(2, 8) for t in pool.truth[10 * number + 8 : 10 * number + 10]]
    assert isinstance(first, RidgeHead)
    wrong = RidgeHead(np.zeros_like(first.weights), 1.0)
    assert method.promotes(first, wrong)
    assert not method.promotes(first, first)
    assert method.learn(Batch(9, pool.features[:1], pool.truth[:1], pool.features[:0]), first) is None
    assert method.learn(Batch(9, pool.features[:0], pool.truth[:0], pool.features[:0]), first) is None


def test_sednas_more_is_more_by_a_millionth() -> None:
    assert exceeds(0.11, 0.1)
    assert not exceeds(0.1 + 1e-7, 0.1)
    assert not exceeds(0.6 - 0.5, 0.1)
    assert not exceeds(-0.2, 0.1)


def test_the_random_filter_sends_three_in_ten_and_spreads_its_labels() -> None:
    seen = Seen(1, np.zeros((10_000, 2), np.float32), np.full((10_000, 2), 0.5), 10_000, 100)
    choice = SednaRandom(LEARNER, np.random.default_rng(0)).choose(seen)
    assert 0.28 < len(choice.upload) / 10_000 < 0.32
    assert (np.diff(choice.upload) > 0).all()
    assert len(choice.ask) == 100
    assert set(choice.ask.tolist()) <= set(choice.upload.tolist())
    assert choice.ask[0] < 100 < 9_900 < choice.ask[-1]
    assert spread(choice.upload[:3], 5).tolist() == choice.upload[:3].tolist()
    assert SednaEager.METRIC_DELTA < SednaRandom.METRIC_DELTA


def test_sedna_takes_the_hard_in_order_of_arrival() -> None:
    method = Sedna(LEARNER, np.random.default_rng(0))
    probabilities = np.array([[0.99, 0.01], [0.6, 0.4], [0.99, 0.01], [0.5, 0.5], [0.7, 0.3]])
    choice = method.choose(Seen(1, np.zeros((5, 2), np.float32), probabilities, 2, 1))
    assert choice.upload.tolist() == [1, 3]
    assert choice.ask.tolist() == [1]
