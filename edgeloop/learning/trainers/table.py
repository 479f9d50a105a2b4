"""Tabular services: a scikit-learn pipeline, fitted from scratch or taken further by what is new."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgeloop.clients.models import Backbone
from edgeloop.errors import BadInput
from edgeloop.learning.blobs import sound_blob
from edgeloop.learning.tabular import fit_pipeline, make_pipeline, to_onnx
from edgeloop.learning.threads import one_thread
from edgeloop.learning.trainers.candidates import Base, put_blob
from edgeloop.learning.trainers.checks import check_features, check_labels, check_numbers
from edgeloop.learning.trainers.incremental import check_incremental, go_on
from edgeloop.learning.trainers.weights import final_weights
from edgeloop.learning.trainers.workshop import Material, RoundTrainer
from edgeloop.samples.payloads import UndecodablePayload, decode_features
from edgeloop.samples.service import Service

if TYPE_CHECKING:
    from numpy.typing import NDArray


class UnusableRow(BadInput):
    """A training sample's feature row is not one of the service, as when features were added or taken away."""


class PipelineTrainer(RoundTrainer):
    """Mode ``sklearn``: the pipeline that the service names by its dotted path."""

    mode: ClassVar[str] = "sklearn"

    def space(self, base: Base | None) -> Backbone | None:
        """None: feature rows are needed as they were sent."""
        return None

    def layers(self, material: Material, base: Base | None, backbone: Backbone | None) -> dict[str, str]:
        """The fitted pipeline, as ONNX for nodes and pickled for people and for the next round."""
        work = self.workshop
        values = feature_rows(work.service, material.rows)
        check_features(values, len(material.truth))
        if work.service.is_classifier:
            check_labels(material.truth, work.service.labels or [])
        else:
            check_numbers(material.truth)
        weights = final_weights(material.truth, material.weights, work.service.trainer.balanced)
        with one_thread():
            estimator = self._fit(values, material.truth, weights, base)
        return {
            "model": put_blob(work.store, to_onnx(estimator, values.shape[1])),
            "pipeline": put_blob(work.store, pickle.dumps(estimator, protocol=5)),
        }

    def _fit(
        self, values: NDArray[np.float32], truth: list[str], weights: NDArray[np.float64] | None, base: Base | None
    ) -> Any:
        service, seed, say = self.workshop.service, self.workshop.seed, self.workshop.progress
        if service.trainer.incremental:
            check_incremental(make_pipeline(service, seed))
            if base is not None and "pipeline" in base.layers:
                pickled = sound_blob(self.workshop.store, base.layers["pipeline"])
                return go_on(service, pickled, base.version, values, truth, weights, seed, say)
        return fit_pipeline(service, values, truth, seed, sample_weight=weights)


def feature_rows(service: Service, rows: list[dict[str, Any]]) -> NDArray[np.float32]:
    """Feature rows of samples: float32 [rows, features].

    Raises:
        UnusableRow: one does not have the service's features; the message names the sample.
    """
    found = []
    for row in rows:
        try:
            found.append(decode_features(row["payload"], service.feature_names))
        except UndecodablePayload as error:
            raise UnusableRow(
                f"training sample {row['sample_id']} of {service.name} cannot be used ({error}): give the service the"
                " features that it was collected with, or a new name"
            ) from error
    return np.stack(found)
