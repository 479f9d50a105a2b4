"""Going on with a fitted scikit-learn pipeline where its estimator can, so that a round costs what is new."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.learning.progress import Progress
from edgeloop.learning.tabular import fit_pipeline, make_pipeline, steps_of, targets_of, weight_argument
from edgeloop.samples.service import Service

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NotIncremental(BadInput):
    """The estimator of a service with ``trainer.incremental`` has no ``partial_fit``."""


class UnloadablePipeline(EdgeloopError):
    """The champion's pickled pipeline does not load, or is of other features, so that nothing can go on from it."""


def check_incremental(estimator: Any) -> None:
    """Refuse an estimator that cannot be taken further, in the first round already.

    Raises:
        NotIncremental: the last step of the pipeline has no ``partial_fit``.
    """
    last = steps_of(estimator)[-1]
    if not hasattr(last, "partial_fit"):
        raise NotIncremental(
            f"{type(last).__name__} has no partial_fit, which trainer.incremental needs: leave incremental out, or name"
            " a pipeline that ends in one that has, such as SGDRegressor or SGDClassifier"
        )


def go_on(
    service: Service,
    pickled: bytes,
    version: str,
    values: NDArray[np.float32],
    truth: Sequence[str],
    weights: NDArray[np.float64] | None,
    seed: int,
    progress: Progress,
) -> Any:
    """Take the pipeline of champion ``version`` further by these samples, once; the last step by ``partial_fit``.

    A step before it learns too where it has ``partial_fit``, and only transforms where it has not, as it was fitted on
    the first round's samples. A classifier that does not know one of the labels is fitted from scratch on these samples
    (all that is new, and the replay), and so is a pipeline whose make-up was changed in the service.

    Raises:
        UnloadablePipeline: ``pickled`` does not load, or was fitted on another number of features.
    """
    estimator = _load(pickled, version, values.shape[1])
    why = _why_anew(service, estimator, truth, fresh=steps_of(make_pipeline(service, seed)))
    if why:
        progress(f"fitted from scratch: {why}")
        return fit_pipeline(service, values, truth, seed, sample_weight=weights)
    rows: Any = values
    *before, last = steps_of(estimator)
    for step in before:
        if hasattr(step, "partial_fit"):
            step.partial_fit(rows)
        rows = step.transform(rows)
    last.partial_fit(rows, targets_of(service, truth), **weight_argument(last, "partial_fit", weights))
    return estimator


def _load(pickled: bytes, version: str, width: int) -> Any:
    try:
        estimator = pickle.loads(pickled)  # noqa: S301 (written by our own trainer)
        fitted_on = int(estimator.n_features_in_)
    except MemoryError:  # the machine's fault
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise UnloadablePipeline(
            f"the pipeline of champion version {version} does not load ({' '.join(str(error).split())[:200]}): leave"
            " trainer.incremental out for one round, which fits from scratch"
        ) from error
    if fitted_on != width:
        raise UnloadablePipeline(
            f"the pipeline of champion version {version} was fitted on {fitted_on} features, the service has {width}:"
            " leave trainer.incremental out for one round, which fits from scratch"
        )
    return estimator


def _make_up(step: Any) -> tuple[type, str]:
    """What a step is made of, so that it equals itself: nan does not, an array says so of each number, and the address
    of an object is another in each process."""
    return type(step), re.sub(r" at 0x[0-9a-fA-F]+", "", repr(sorted(step.get_params().items())))


def _why_anew(service: Service, estimator: Any, truth: Sequence[str], fresh: Sequence[Any]) -> str | None:
    """Why the champion's pipeline cannot be taken further; None if it can."""
    known = steps_of(estimator)
    if [_make_up(s) for s in known] != [_make_up(s) for s in fresh]:
        return "the service's pipeline or its parameters were changed"
    unknown = sorted(set(truth) - {str(c) for c in known[-1].classes_}) if service.is_classifier else []
    return f"the champion's pipeline does not know the labels {unknown}" if unknown else None
