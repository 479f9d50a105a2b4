"""A head is scikit-learn's regression folded into one linear map, and no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from edgeloop.learning.heads import TooFewClasses, fit_head
from edgeloop.samples.service import Head

CONFIG = Head(c=0.5, max_iter=1000, tol=1e-8)


def data(labels: list[str], seed: int = 0, rows: int = 90, width: int = 6) -> tuple[Any, list[str]]:
    rng = np.random.default_rng(seed)
    truth = [labels[i % len(labels)] for i in range(rows)]
    centres = {label: rng.normal(0, 2, width) for label in labels}
    features = np.stack([centres[t] + rng.normal(0, 1.5, width) for t in truth]) * 3 + 7
    return features.astype(np.float32), truth


def by_sklearn(features: Any, truth: list[str], labels: list[str]) -> Any:
    """The probabilities that scikit-learn gives, columns in the order of ``labels``."""
    scaler = StandardScaler().fit(features.astype(np.float64))
    model = LogisticRegression(C=CONFIG.c, max_iter=CONFIG.max_iter, tol=CONFIG.tol)
    model.fit(scaler.transform(features.astype(np.float64)), truth)
    found = model.predict_proba(scaler.transform(features.astype(np.float64)))
    return found[:, [list(model.classes_).index(label) for label in labels]]


@settings(max_examples=15, deadline=None)
@given(st.permutations(["a", "b", "c", "d"]), st.integers(2, 4), st.integers(0, 1000))
def test_a_head_answers_as_scikit_learn_does_on_the_raw_features(order: list[str], count: int, seed: int) -> None:
    labels = order[:count]
    features, truth = data(labels, seed)
    head = fit_head(features, truth, labels, CONFIG, 0)
    assert head.labels == tuple(labels)
    assert head.weights.dtype == head.bias.dtype == np.float32
    assert np.allclose(head.probabilities(features), by_sklearn(features, truth, labels), atol=2e-3)


def test_a_label_that_no_sample_has_is_never_answered() -> None:
    features, truth = data(["a", "c"])
    head = fit_head(features, truth, ["a", "b", "c"], CONFIG, 0)
    found = head.probabilities(features)
    assert found[:, 1].max() < 1e-12
    assert np.allclose(found[:, [0, 2]], by_sklearn(features, truth, ["a", "c"]), atol=2e-3)


def test_a_feature_that_never_changes_does_not_matter() -> None:
    features, truth = data(["a", "b"])
    features[:, 2] = 4
    head = fit_head(features, truth, ["a", "b"], CONFIG, 0)
    assert np.isfinite(head.weights).all()
    moved = features.copy()
    moved[:, 2] = 4.001
    assert np.allclose(head.probabilities(moved), head.probabilities(features), atol=1e-2)


def test_the_same_samples_make_the_same_bytes() -> None:
    features, truth = data(["a", "b", "c"])
    made = {fit_head(features, truth, ["a", "b", "c"], CONFIG, 7).to_bytes() for _ in range(2)}
    assert len(made) == 1


@pytest.mark.parametrize("truth", [["a"] * 5, ["b"] * 5])
def test_of_one_label_nothing_can_be_learned(truth: list[str]) -> None:
    with pytest.raises(TooFewClasses, match=rf"only the labels \['{truth[0]}'\]: label samples of at least two"):
        fit_head(np.zeros((5, 3), np.float32), truth, ["a", "b"], CONFIG, 0)
