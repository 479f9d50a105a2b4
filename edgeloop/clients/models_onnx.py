"""Tabular models: scikit-learn pipelines exported to ONNX, so that a node needs no scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from edgeloop.clients.model_types import Answer, UnloadableModel
from edgeloop.samples.payloads import decode_features

#: Metadata of an ONNX classifier: JSON list of its classes, in the order of its probabilities.
CLASSES = "edgeloop.classes"


class OnnxModel:
    """A scikit-learn pipeline exported to ONNX: float32 [n, features] in. One session serves every thread."""

    backbone_digest: str | None = None

    def __init__(self, content: bytes, features: Sequence[str], labels: Sequence[str] | None) -> None:
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except MemoryError:  # the machine's fault
            raise
        except Exception as error:  # onnxruntime raises its own untyped classes
            raise UnloadableModel(
                f"ONNX model of {len(content)} bytes does not load ({error}): export it again"
            ) from error
        self._input = self._session.get_inputs()[0].name
        self._features = list(features)
        self.labels = tuple(labels) if labels else None
        self._columns = self._label_columns()

    def _label_columns(self) -> list[int]:
        """For each class that training saw, in the order of the model's probabilities, its place among the labels."""
        if self.labels is None:
            return []
        named = self._session.get_modelmeta().custom_metadata_map.get(CLASSES)
        try:
            return [self.labels.index(name) for name in json.loads(named)] if named else list(range(len(self.labels)))
        except ValueError as error:
            raise UnloadableModel(
                f"ONNX model knows the classes {named}, not {self.labels}: release it again"
            ) from error

    def predict(self, payload: bytes) -> Answer:
        """Answer one feature row. A label that training never saw has the probability zero."""
        row = decode_features(payload, self._features)[np.newaxis]
        outputs = self._session.run(None, {self._input: row})
        if self.labels is None:
            return Answer(repr(float(np.asarray(outputs[0]).reshape(-1)[0])), None, None, None)
        probabilities = np.zeros(len(self.labels))
        probabilities[self._columns] = np.asarray(outputs[1])[0]
        best = int(probabilities.argmax())
        return Answer(self.labels[best], float(probabilities[best]), tuple(float(p) for p in probabilities), None)
