"""Tabular services: scikit-learn pipelines named by a dotted path, exported to ONNX so that nodes need none of it."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.clients.models import CLASSES
from edgeloop.errors import BadInput, MissingExtra
from edgeloop.samples.service import Service

if TYPE_CHECKING:
    from numpy.typing import NDArray


class UnknownPipeline(BadInput):
    """The dotted path of a pipeline does not lead to a function that makes one."""


class Weightless(BadInput):
    """Samples are to be weighed, and the estimator cannot."""


def elastic_net(seed: int, alpha: float = 0.01, l1_ratio: float = 0.5) -> Any:
    """Standardised ElasticNet regression; the default for regressors."""
    from sklearn import pipeline
    from sklearn.linear_model import ElasticNet
    from sklearn.preprocessing import StandardScaler

    return pipeline.make_pipeline(StandardScaler(), ElasticNet(alpha=alpha, l1_ratio=l1_ratio, random_state=seed))


def logistic(seed: int, c: float = 1.0, max_iter: int = 500) -> Any:
    """Standardised logistic regression; a sensible choice for classifiers."""
    from sklearn import pipeline
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    return pipeline.make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=max_iter, random_state=seed))


def find_pipeline(path: str) -> Callable[..., Any]:
    """Resolve ``package.module:function``.

    Raises:
        UnknownPipeline: there is no such module or function.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownPipeline(
            f"trainer.pipeline {path!r} is not importable ({error}): use package.module:function"
        ) from error
    if not callable(found):
        raise UnknownPipeline(f"trainer.pipeline {path!r} is not a function: name one that returns an estimator")
    return found  # type: ignore[no-any-return]


def make_pipeline(service: Service, seed: int) -> Any:
    """The service's pipeline, not fitted.

    Raises:
        UnknownPipeline: it cannot be found, or does not take the service's ``trainer.params``.
    """
    make = find_pipeline(service.trainer.pipeline)
    try:
        return make(seed=seed, **service.trainer.params)
    except TypeError as error:
        raise UnknownPipeline(f"trainer.pipeline {service.trainer.pipeline}: {error}: mend trainer.params") from error


def fit_pipeline(
    service: Service,
    rows: NDArray[np.float32],
    truth: Sequence[str],
    seed: int,
    *,
    sample_weight: NDArray[np.float64] | None = None,
) -> Any:
    """Fit the service's pipeline on rows [samples, features] and their labels.

    ``sample_weight`` is float64 [samples]; the last step of a pipeline takes it, the steps before it do not.

    Raises:
        UnknownPipeline: see ``make_pipeline``.
        Weightless: there are weights, and the estimator takes none.
    """
    from sklearn.pipeline import Pipeline

    estimator = make_pipeline(service, seed)
    weights = weight_argument(steps_of(estimator)[-1], "fit", sample_weight)
    if isinstance(estimator, Pipeline):
        weights = {f"{estimator.steps[-1][0]}__{name}": value for name, value in weights.items()}
    return estimator.fit(rows, targets_of(service, truth), **weights)


def targets_of(service: Service, truth: Sequence[str]) -> Any:
    """The right answers as scikit-learn takes them: labels, or float64 [samples]."""
    return list(truth) if service.is_classifier else np.asarray([float(t) for t in truth])


def steps_of(estimator: Any) -> list[Any]:
    """The steps of a pipeline in their order, those that do nothing left out; an estimator alone is one step."""
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [estimator]
    return [step for _, step in estimator.steps if step not in {None, "passthrough"}]


def weight_argument(
    estimator: Any, method: str, sample_weight: NDArray[np.float64] | None
) -> dict[str, NDArray[np.float64]]:
    """Keyword arguments that hand ``sample_weight`` to a method of ``estimator``; none without weights.

    Raises:
        Weightless: the method takes no weights.
    """
    if sample_weight is None:
        return {}
    if "sample_weight" not in inspect.signature(getattr(estimator, method)).parameters:
        raise Weightless(
            f"{type(estimator).__name__}.{method} takes no sample_weight: leave trainer.importance, trainer.balanced"
            " and labelling.pseudo out, or name another pipeline"
        )
    return {"sample_weight": sample_weight}


def to_onnx(estimator: Any, n_features: int) -> bytes:
    """Export a fitted pipeline: float32 [n, features] in; numbers, or labels and probabilities, out."""
    try:
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise MissingExtra("skl2onnx", "train") from error
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "classes_") else None
    model = convert_sklearn(
        estimator, "edgeloop", [("input", FloatTensorType([None, n_features]))], options=options, target_opset=18
    )
    if options:  # the classes that were seen, in the order of the probabilities
        entry = model.metadata_props.add()
        entry.key, entry.value = CLASSES, json.dumps([str(c) for c in estimator.classes_])
    data: bytes = model.SerializeToString()
    return data
