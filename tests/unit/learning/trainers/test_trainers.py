"""Trainers on features: what they compute, that nodes run it, how repeatable it is, and how a new label grows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from edgeloop.clients.model_heads import lift
from edgeloop.clients.models import read_head
from edgeloop.learning.heads import TooFewClasses, UnknownLabel
from edgeloop.learning.trainers.kinds import KINDS
from edgeloop.learning.trainers.mlp import SmallNetwork
from edgeloop.learning.trainers.ncm import NearestMean
from edgeloop.learning.trainers.protocol import HeadTrainer, UnusableFeatures
from edgeloop.learning.trainers.ranpac import RanPac
from edgeloop.learning.trainers.slda import StreamingLda
from edgeloop.learning.trainers.weights import UnusableWeights, final_weights, importance_weights
from edgeloop.samples.service import Head


def Logistic(balanced: bool = False) -> HeadTrainer:
    return KINDS["linear"](Head(), balanced)


ALL: list[Callable[..., HeadTrainer]] = [
    Logistic,
    NearestMean,
    StreamingLda,
    lambda **k: RanPac(width=300, **k),
    SmallNetwork,
]
NAMES = ["linear", "ncm", "slda", "ranpac", "mlp"]
every = pytest.mark.parametrize("make", ALL, ids=NAMES)


def clouds(counts: dict[str, int], seed: int = 0, width: int = 5) -> tuple[Any, list[str]]:
    """Overlapping round clouds, their centres by label."""
    rng = np.random.default_rng(seed)
    centres = {label: np.random.default_rng(ord(label)).normal(0, 2, width) for label in counts}
    truth = [label for label, count in counts.items() for _ in range(count)]
    features = np.stack([centres[t] + rng.normal(0, 1.5, width) for t in truth]) + 7
    return features.astype(np.float32), truth


def answers(scorer: Any, features: Any) -> list[str]:
    return [scorer.labels[i] for i in scorer.probabilities(features).argmax(axis=1)]


@pytest.mark.parametrize(("make", "least"), list(zip(ALL, [0.94, 0.87, 0.92, 0.96, 0.95], strict=True)), ids=NAMES)
def test_scanned_digits_are_told_apart(make: Callable[..., HeadTrainer], least: float) -> None:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))  # in the file, the last writers are others
    features, truth = data.data[order].astype(np.float32), [str(t) for t in data.target[order]]
    scorer = make().fit(features[:1200], truth[:1200], [str(d) for d in range(10)], seed=1)
    assert np.mean([a == t for a, t in zip(answers(scorer, features[1200:]), truth[1200:], strict=True)]) >= least


def test_slda_is_linear_discriminant_analysis() -> None:
    features, truth = clouds({"a": 60, "b": 25, "c": 40})
    head = StreamingLda(shrinkage=0.2).fit(features, truth, ["a", "b", "c"])
    known = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(features.astype(np.float64), truth)
    assert np.allclose(head.probabilities(features), known.predict_proba(features.astype(np.float64)), atol=5e-3)


@pytest.mark.parametrize("rows", [15, 60])
def test_ranpac_is_ridge_regression_on_its_random_features(rows: int) -> None:
    features, truth = clouds({"a": rows, "b": rows})
    weights = np.random.default_rng(2).uniform(0.5, 2, 2 * rows)
    fitted = RanPac(width=40).fit(features, truth, ["a", "b"], weights, seed=4)
    factor = features.shape[1] ** -0.5 / float(features.astype(np.float64).std())
    lifted = lift(features, fitted.first, fitted.first_bias) * factor
    targets = np.asarray([[t == "a", t == "b"] for t in truth], dtype=np.float64)
    found = []
    for ridge in 10.0 ** np.arange(-4, 5):
        known = Ridge(alpha=ridge, fit_intercept=False).fit(lifted, targets, weights / weights.mean())
        centred = (known.coef_ - known.coef_.mean(axis=0)).T * factor
        scale = (centred * fitted.second).sum() / (centred**2).sum()
        found.append(np.allclose(centred * scale, fitted.second, rtol=1e-2, atol=1e-4 * np.abs(fitted.second).max()))
    assert sum(found) == 1


def test_ncm_answers_the_nearest_mean() -> None:
    features, truth = clouds({"a": 60, "b": 25, "c": 40})
    head = NearestMean().fit(features, truth, ["c", "b", "a"])
    means = {label: features[[t == label for t in truth]].mean(axis=0) for label in "abc"}
    nearest = [min("abc", key=lambda label: float(((row - means[label]) ** 2).sum())) for row in features]
    assert answers(head, features) == nearest


@pytest.mark.parametrize("make", [NearestMean, StreamingLda], ids=["ncm", "slda"])
def test_a_sample_of_weight_three_counts_as_three_samples(make: Callable[..., NearestMean | StreamingLda]) -> None:
    features, truth = clouds({"a": 30, "b": 30})
    counts = np.random.default_rng(1).integers(1, 4, 60)
    weighted = make().fit(features, truth, ["a", "b"], counts.astype(np.float64))
    repeated = make().fit(features.repeat(counts, axis=0), list(np.repeat(truth, counts)), ["a", "b"])
    assert np.allclose(weighted.weights, repeated.weights, rtol=1e-3, atol=1e-5)
    assert np.allclose(weighted.bias, repeated.bias, rtol=1e-3, atol=1e-4)


@every
def test_samples_that_hardly_count_do_not_decide(make: Callable[..., HeadTrainer]) -> None:
    features, truth = clouds({"a": 60, "b": 60}, width=3)
    wrong = ["b" if t == "a" else "a" for t in truth]
    twice = np.concatenate([features, features, features])
    weights = np.repeat([1.0, 1e-4, 1e-4], len(features))
    right = answers(make().fit(twice, truth + wrong + wrong, ["a", "b"], weights), features)
    misled = answers(make().fit(twice, truth + wrong + wrong, ["a", "b"]), features)
    assert np.mean([x == t for x, t in zip(right, truth, strict=True)]) > 0.85
    assert np.mean([x == t for x, t in zip(misled, truth, strict=True)]) < 0.5


@pytest.mark.parametrize(
    "make", [Logistic, StreamingLda, SmallNetwork, RanPac], ids=["linear", "slda", "mlp", "ranpac"]
)
def test_balanced_finds_more_of_a_rare_label(make: Callable[..., HeadTrainer]) -> None:
    features, truth = clouds({"a": 400, "b": 12}, width=2)
    fresh, _ = clouds({"b": 500}, seed=5, width=2)
    plain, fair = (answers(make(balanced=b).fit(features, truth, ["a", "b"]), fresh).count("b") for b in (False, True))
    assert fair > plain + 25


@every
def test_the_same_samples_and_seed_make_the_same_bytes(make: Callable[..., HeadTrainer]) -> None:
    features, truth = clouds({"a": 30, "b": 20, "c": 30})
    weights = importance_weights(np.random.default_rng(0).uniform(0.1, 1, 80))
    made = [make(balanced=True).fit(features, truth, list("abcd"), weights, seed=3) for _ in range(2)]
    assert len({m.probabilities(features).tobytes() for m in made}) == 1
    assert len({m.to_bytes() for m in made}) == 1


@every
def test_what_nodes_run_is_what_was_fitted(make: Callable[..., HeadTrainer]) -> None:
    features, truth = clouds({"a": 30, "b": 20, "c": 30})
    head = make().fit(features, truth, list("abc"))
    again = read_head(head.to_bytes())
    assert type(again) is type(head)
    assert (again.labels, again.width) == (head.labels, 5)
    assert np.array_equal(again.probabilities(features), head.probabilities(features))
    assert again.to_bytes() == head.to_bytes()


@every
def test_a_new_label_grows_the_head_and_is_answered_once_it_has_samples(make: Callable[..., HeadTrainer]) -> None:
    features, truth = clouds({"a": 40, "b": 40, "c": 40})
    before = [i for i, t in enumerate(truth) if t != "c"]
    old = make().fit(features[before], [truth[i] for i in before], ["a", "b"])
    grown = make().fit(features[before], [truth[i] for i in before], ["a", "b", "c"])
    assert grown.labels == ("a", "b", "c")
    assert grown.probabilities(features)[:, 2].max() < 1e-12
    assert np.allclose(grown.probabilities(features)[:, :2], old.probabilities(features), atol=1e-9)
    taught = make().fit(features, truth, ["a", "b", "c"])
    assert answers(taught, features)[-40:].count("c") > 30


@every
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), far=st.sampled_from([1.0, 1e2, 1e4]))
def test_a_label_without_samples_wins_nowhere(make: Callable[..., HeadTrainer], seed: int, far: float) -> None:
    features, truth = clouds({"a": 20, "b": 10, "c": 20})
    head = make().fit(features, truth, ["a", "new", "b", "c"])
    strange = np.random.default_rng(seed).normal(0, far, (50, 5)).astype(np.float32)
    assert head.probabilities(strange)[:, 1].max() < 1e-12


@every
def test_bad_input_is_named(make: Callable[..., HeadTrainer]) -> None:
    features, truth = clouds({"a": 10, "b": 10})
    with pytest.raises(TooFewClasses, match="only the labels"):
        make().fit(features, ["a"] * 20, ["a", "b"])
    with pytest.raises(UnknownLabel, match=r"have the labels \['b'\]: add them"):
        make().fit(features, truth, ["a", "c"])
    for weights in (np.ones(19), np.zeros(20), np.full(20, np.nan)):
        with pytest.raises(UnusableWeights, match="positive finite"):
            make().fit(features, truth, ["a", "b"], weights)


@pytest.mark.parametrize("make", ALL[1:], ids=NAMES[1:])
def test_features_must_be_finite_and_one_a_label(make: Callable[..., HeadTrainer]) -> None:
    features, truth = clouds({"a": 10, "b": 10})
    with pytest.raises(UnusableFeatures, match=r"\(20, 5\) with 19 labels"):
        make().fit(features, truth[1:], ["a", "b"])
    features[3, 2] = np.nan
    with pytest.raises(UnusableFeatures, match="finite"):
        make().fit(features, truth, ["a", "b"])


@every
def test_constant_features_teach_nothing_and_break_nothing(make: Callable[..., HeadTrainer]) -> None:
    scorer = make(balanced=True).fit(np.full((40, 4), 3, np.float32), ["a"] * 10 + ["b"] * 30, ["a", "b"])
    found = scorer.probabilities(np.full((1, 4), 3, np.float32))
    assert np.allclose(found, 0.5, atol=0.1)


def test_importance_weights_undo_selection_and_are_clipped() -> None:
    assert np.allclose(importance_weights(np.asarray([1.0, 0.5])), [2 / 3, 4 / 3])
    clipped = importance_weights(np.asarray([1.0, 1e-9]), most=10)
    assert clipped[1] / clipped[0] == pytest.approx(10)
    assert clipped.mean() == pytest.approx(1)
    assert len(importance_weights(np.zeros(0))) == 0
    rng = np.random.default_rng(0)
    values = rng.normal(size=20000)
    chance = np.where(values > 0, 0.5, 0.1)
    kept = rng.random(20000) < chance
    assert abs(np.average(values[kept], weights=importance_weights(chance[kept])) - values.mean()) < 0.05
    assert values[kept].mean() > 0.4
    for wrong in (0.0, 1.1, np.nan):
        with pytest.raises(UnusableWeights, match="each must be in"):
            importance_weights(np.asarray([wrong]))


@settings(max_examples=30)
@given(st.lists(st.sampled_from("abc"), min_size=1), st.integers(0, 99))
def test_balanced_weights_give_each_label_the_same_total(truth: list[str], seed: int) -> None:
    given_weights = np.random.default_rng(seed).uniform(0.1, 5, len(truth))
    found = final_weights(truth, given_weights, balanced=True)
    assert found is not None
    totals = [found[[t == label for t in truth]].sum() for label in set(truth)]
    assert np.allclose(totals, totals[0])
    assert found.mean() == pytest.approx(1)
    assert final_weights(truth, None, balanced=False) is None
