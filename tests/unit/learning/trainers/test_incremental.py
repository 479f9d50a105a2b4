"""Going on with the champion's pipeline, where its estimator can; and what no trainer can learn from, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models import OnnxModel
from edgeloop.errors import BadInput
from edgeloop.learning.heads import TooFewClasses, UnknownLabel
from edgeloop.learning.tabular import Weightless, fit_pipeline
from edgeloop.learning.train import Base
from edgeloop.learning.trainers.checks import (
    ConstantFeatures,
    TooFewSamples,
    UnusableTargets,
    check_features,
    check_labels,
    check_numbers,
)
from edgeloop.learning.trainers.incremental import NotIncremental, UnloadablePipeline, check_incremental, go_on
from edgeloop.learning.trainers.protocol import UnusableFeatures
from edgeloop.learning.trainers.table import UnusableRow, feature_rows
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import MalformedService, Service, parse_service
from tests.unit.learning.loop import Loop, rater
from tests.unit.samples.make import classifier, regressor

HERE = {"incremental": True, "pipeline": f"{__name__}:make_line"}
SORTS = {"incremental": True, "pipeline": f"{__name__}:make_sorter"}


def make_line(seed: int, power: float = 0.1) -> Any:
    """Named by its dotted path, as a user's own pipeline would be."""
    from sklearn.linear_model import SGDRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), SGDRegressor(random_state=seed, power_t=power))


def make_sorter(seed: int) -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB()


def make_neighbours(seed: int) -> Any:
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(2)


def test_a_round_goes_on_from_the_champion(tmp_path: Path) -> None:
    loop = Loop(tmp_path, rater(trainer=HERE))
    loop.collect(range(100))
    first = loop.train(loop.plan())
    base = Base(version="1", dataset=first.dataset, layers=first.layers)
    loop.collect(range(1000, 1200))
    plan = loop.plan().model_copy(update={"base": base})
    second = loop.train(plan)
    scratch = loop.train(plan.model_copy(update={"base": None}))
    assert second.layers["pipeline"] not in {first.layers["pipeline"], scratch.layers["pipeline"]}
    model = OnnxModel(loop.store.get(blob_key(second.layers["model"])), ["a", "b"], None)
    assert model.predict(encode_features([4, 3])).value == pytest.approx(5, abs=0.5)


def sorted_rows(labels: list[str]) -> tuple[Any, list[str]]:
    rng = np.random.default_rng(0)
    truth = [labels[i % len(labels)] for i in range(60)]
    return (rng.normal(size=(60, 2)) + [[3 * ord(t), 0] for t in truth]).astype(np.float32), truth


def went_on(service: Service, labels: list[str], champion: Any, width: int = 2) -> tuple[Any, list[str]]:
    import pickle

    said: list[str] = []
    rows, truth = sorted_rows(labels)
    rows = np.tile(rows, (1, width))[:, :width]
    made = go_on(service, pickle.dumps(champion), "7", rows, truth, None, 0, said.append)
    return made, said


def test_both_the_old_and_the_new_are_counted_once() -> None:
    service = classifier(trainer=SORTS)
    rows, truth = sorted_rows(["x", "y"])
    made, said = went_on(service, ["x", "y"], fit_pipeline(service, rows, truth, 0))
    assert said == []
    assert made.class_count_.tolist() == [60, 60]


def test_a_new_label_is_fitted_from_scratch_and_said() -> None:
    service = classifier(trainer=SORTS)
    made, said = went_on(service, ["x", "y", "z"], fit_pipeline(service, *sorted_rows(["x", "y"]), 0))
    assert said == ["fitted from scratch: the champion's pipeline does not know the labels ['z']"]
    assert list(made.classes_) == ["x", "y", "z"]


def test_changed_parameters_are_fitted_from_scratch_and_said() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    champion = fit_pipeline(regressor(trainer=HERE), rows, [str(a) for a, _ in rows.tolist()], 0)
    changed = regressor(trainer=HERE | {"params": {"power": 0.2}})
    _, said = went_on(changed, ["1", "2"], champion)
    assert said == ["fitted from scratch: the service's pipeline or its parameters were changed"]


def test_an_estimator_that_cannot_go_on_is_named_in_the_first_round(tmp_path: Path) -> None:
    loop = Loop(tmp_path, rater(trainer={"incremental": True}))
    loop.collect(range(60))
    with pytest.raises(NotIncremental, match=r"ElasticNet has no partial_fit.*leave incremental out, or name"):
        loop.train(loop.plan())
    check_incremental(make_line(0))


def test_a_champion_that_does_not_load_is_named() -> None:
    service = classifier(trainer=SORTS)
    with pytest.raises(UnloadablePipeline, match="version 7 does not load"):
        went_on(service, ["x", "y"], {"not": "a pipeline"})
    with pytest.raises(UnloadablePipeline, match="fitted on 2 features, the service has 3"):
        went_on(service, ["x", "y"], fit_pipeline(service, *sorted_rows(["x", "y"]), 0), 3)


def test_weights_for_an_estimator_that_takes_none_are_refused(tmp_path: Path) -> None:
    loop = Loop(tmp_path, rater(trainer={"pipeline": f"{__name__}:make_neighbours", "importance": True}))
    loop.collect(range(60))
    with pytest.raises(Weightless, match=r"KNeighborsRegressor.fit takes no sample_weight: leave"):
        loop.train(loop.plan())


@pytest.mark.parametrize(
    ("lines", "message"),
    [("{balanced: true}", "balanced is for classifiers"), ("{head: {kind: oak}}", "trainer.head.kind")],
)
def test_settings_that_do_not_fit_are_refused(lines: str, message: str) -> None:
    text = (
        "version: 1\nname: rater\nkind: tabular-regressor\ndescription: d\nfeatures: [{name: a}]\n"
        f"target: {{name: y}}\ntrainer: {lines}\n"
    )
    with pytest.raises(MalformedService, match=message):
        parse_service(text, "x.yaml")


FINE = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TooFewClasses, r"only the labels \['a'\]: label", lambda: check_labels(["a"] * 6, ["a", "b"])),
        (TooFewSamples, "2 training samples for 3 labels: label", lambda: check_labels(["a", "b"], ["a", "b", "c"])),
        (UnknownLabel, r"have the labels \['z'\]: add", lambda: check_labels(["a", "z"], ["a", "b"])),
        (ConstantFeatures, "6 training samples have the same 2", lambda: check_features(np.ones((6, 2), "f4"), 6)),
        (
            UnusableFeatures,
            "1 of 6 .* at place 2",
            lambda: check_features(np.where(FINE[2, 0] == FINE, np.nan, FINE), 6),
        ),
        (UnusableFeatures, r"\(6, 2\) with 5 labels: give", lambda: check_features(FINE, 5)),
        (UnusableTargets, "the label 'nan': label it", lambda: check_numbers(["1", "nan"])),
        (UnusableTargets, "the label 'cat': label it", lambda: check_numbers(["1", "cat"])),
        (UnusableTargets, "all 3 training samples have the label 4", lambda: check_numbers(["4", "4.0", "4"])),
        (
            UnusableRow,
            "training sample one of rater cannot be used .*: give the service",
            lambda: feature_rows(regressor(), [{"sample_id": "one", "payload": encode_features([1, 2, 3])}]),
        ),
    ],
)
def test_what_cannot_be_learned_from_is_named(error: type[BadInput], message: str, call: Any) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_round_of_equal_rows_is_refused(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.collect(range(60), spread=0.0, noise=1.0)
    with pytest.raises(ConstantFeatures, match="have the same 2 features: look at what the devices send"):
        loop.train(loop.plan())


def make_filler(seed: int) -> Any:
    """Its parameters hold nan, which equals nothing."""
    from sklearn.impute import SimpleImputer
    from sklearn.naive_bayes import GaussianNB
    from sklearn.pipeline import make_pipeline

    return make_pipeline(SimpleImputer(missing_values=float("nan")), GaussianNB())


def test_parameters_that_hold_nan_are_not_taken_for_changed() -> None:
    service = classifier(trainer={"incremental": True, "pipeline": f"{__name__}:make_filler"})
    rows, truth = sorted_rows(["x", "y"])
    _, said = went_on(service, ["x", "y"], fit_pipeline(service, rows, truth, 0))
    assert said == []
