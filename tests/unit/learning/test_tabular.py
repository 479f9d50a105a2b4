"""The model that nodes run answers what the pipeline that was fitted answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models import OnnxModel
from edgeloop.learning.tabular import UnknownPipeline, find_pipeline, fit_pipeline, to_onnx
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.service import Service
from tests.unit.samples.make import classifier, regressor

not_a_function = 3


def make_forest(seed: int, trees: int = 5) -> Any:
    """Named by its dotted path below, as a user's own pipeline would be."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(trees, random_state=seed, max_depth=4)


def fitted(service: Service, labels: list[str] | None = None) -> tuple[Any, Any, OnnxModel]:
    rng = np.random.default_rng(3)
    rows = rng.uniform(-5, 5, (120, 2)).astype(np.float32)
    if labels is None:
        truth = [str(float(a - 2 * b)) for a, b in rows]
    else:
        truth = [labels[int(i)] for i in np.digitize(rows[:, 0], np.linspace(-5, 5, len(labels) + 1)[1:-1])]
    estimator = fit_pipeline(service, rows, truth, 0)
    return rows, estimator, OnnxModel(to_onnx(estimator, 2), service.feature_names, service.labels)


def answers(model: OnnxModel, rows: Any) -> list[Any]:
    return [model.predict(encode_features(row)) for row in rows.tolist()]


def test_elastic_net_answers_the_same_everywhere() -> None:
    rows, estimator, model = fitted(regressor())
    assert [a.value for a in answers(model, rows)] == pytest.approx(list(estimator.predict(rows)), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("pipeline", ["edgeloop.learning.tabular:logistic", f"{__name__}:make_forest"])
def test_a_classifier_answers_the_same_everywhere(pipeline: str) -> None:
    service = classifier(trainer={"pipeline": pipeline})
    rows, estimator, model = fitted(service, ["x", "y", "z"])
    found = answers(model, rows)
    assert [a.prediction for a in found] == list(estimator.predict(rows))
    assert np.allclose([a.probabilities for a in found], estimator.predict_proba(rows), atol=1e-4)
    assert [a.confidence for a in found] == [max(a.probabilities) for a in found]


@pytest.mark.parametrize(
    ("named", "seen"), [(["z", "x", "y"], ["z", "x", "y"]), (["x", "y", "z"], ["x", "z"])], ids=["order", "absent"]
)
def test_a_classifier_answers_the_label_it_means(named: list[str], seen: list[str]) -> None:
    """Whatever order the service names its labels in, and if one of them has no sample yet."""
    rows, estimator, model = fitted(classifier(labels=named), seen)
    found = answers(model, rows)
    assert [a.prediction for a in found] == list(estimator.predict(rows))
    by_label = dict(zip(estimator.classes_, estimator.predict_proba(rows).T, strict=True))
    expected = np.stack([by_label.get(name, np.zeros(len(rows))) for name in named], axis=1)
    assert np.allclose([a.probabilities for a in found], expected, atol=1e-4)


def test_the_same_rows_make_the_same_bytes() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    truth = [str(float(a)) for a, _ in rows]
    assert len({to_onnx(fit_pipeline(regressor(), rows, truth, 0), 2) for _ in range(2)}) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.such.module:f", "is not importable"),
        ("edgeloop.learning.tabular:no_such", "is not importable"),
        ("edgeloop.learning.tabular", "is not importable"),
        ("", "is not importable"),
        (":", "is not importable"),
        (f"{__name__}:not_a_function", "is not a function"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(path: str, message: str) -> None:
    with pytest.raises(UnknownPipeline, match=message) as caught:
        find_pipeline(path)
    assert repr(path) in str(caught.value)


def test_parameters_that_a_pipeline_does_not_take_are_named() -> None:
    service = regressor(trainer={"params": {"alfa": 1}})
    with pytest.raises(UnknownPipeline, match=r"'alfa': mend trainer.params"):
        fit_pipeline(service, np.zeros((2, 2), np.float32), ["1", "2"], 0)
