"""A packaged model behind one protocol, so that the node that serves it and the cloud that judges it run the same code.

What is evaluated is what is deployed: the exported LiteRT backbone with its head, or the exported ONNX pipeline.
Neither needs TensorFlow or scikit-learn.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.samples.payloads import decode_features, decode_image
from edgeloop.samples.service import NodeConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Metadata of an ONNX classifier: JSON list of its classes, in the order of its probabilities.
CLASSES = "edgeloop.classes"


class UnloadableModel(EdgeloopError):
    """The bytes of a release do not make a model that runs here."""


class FailedProbe(EdgeloopError):
    """A freshly loaded model answers its probe inputs differently from what the release says."""


class UnknownBackbone(BadInput):
    """A LiteRT file that cannot serve as a backbone."""


@dataclass(frozen=True)
class Answer:
    """What a model says of one input."""

    prediction: str
    """Label of a classifier, or the decimal number of a regressor."""
    confidence: float | None
    """Probability of the label; None for a regressor."""
    probabilities: tuple[float, ...] | None
    """One per label, in the order of the labels."""
    embedding: NDArray[np.float16] | None
    """Backbone features, shape [features]; None where there is no backbone."""

    @property
    def value(self) -> float:
        """The number a regressor answered."""
        return float(self.prediction)


class Model(Protocol):
    """One loaded model. ``predict`` may be called from several threads."""

    labels: tuple[str, ...] | None
    backbone_digest: str | None

    def predict(self, payload: bytes) -> Answer:
        """Answer one payload; raises UndecodablePayload when it is no input of this model."""
        ...


class Backbone:
    """A LiteRT feature extractor: an image in, one feature vector out. One interpreter per thread that asks."""

    def __init__(self, content: bytes, name: str) -> None:
        import threading

        self._content = content
        self.digest = name
        self._local = threading.local()
        detail = self._interpreter()[1]
        shape = [int(n) for n in detail["shape"]]
        if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise UnknownBackbone(f"backbone takes input of shape {shape}, not [1, side, side, 3]: choose another file")
        self.size = shape[1]
        self.length = int(np.prod(self._interpreter()[2]["shape"]))

    def _interpreter(self) -> tuple[Any, dict[str, Any], dict[str, Any]]:
        if not hasattr(self._local, "parts"):
            try:
                from ai_edge_litert.interpreter import Interpreter

                interpreter = Interpreter(model_content=self._content, num_threads=1)
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise UnloadableModel(f"backbone {self.digest} does not load ({error}): export it again") from error
            self._local.parts = (
                interpreter,
                interpreter.get_input_details()[0],
                interpreter.get_output_details()[0],
            )
        parts: tuple[Any, dict[str, Any], dict[str, Any]] = self._local.parts
        return parts

    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of one uint8 image [side, side, 3] with values 0 to 255; float32 of shape [features]."""
        interpreter, source, sink = self._interpreter()
        interpreter.set_tensor(source["index"], image[np.newaxis].astype(source["dtype"]))
        interpreter.invoke()
        raw = np.asarray(interpreter.get_tensor(sink["index"])).reshape(-1)
        scale, zero = sink["quantization"]
        values = (raw.astype(np.float32) - zero) * scale if scale else raw
        return np.asarray(values, dtype=np.float32)


@dataclass(frozen=True)
class LinearHead:
    """Softmax of a linear map: ``weights`` float32 [features, labels], ``bias`` float32 [labels]."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    labels: tuple[str, ...]

    def probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities for features [n, features]: float64 [n, labels], rows sum to one."""
        logits = features.astype(np.float64) @ self.weights.astype(np.float64) + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        exp = np.exp(logits)
        return np.asarray(exp / exp.sum(axis=1, keepdims=True))

    def to_bytes(self) -> bytes:
        """Encode as npz; the same head gives the same bytes."""
        sink = io.BytesIO()
        np.savez(sink, weights=self.weights, bias=self.bias, labels=np.array(self.labels, dtype=np.str_))
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> LinearHead:
        """Decode what :meth:`to_bytes` wrote; raises UnloadableModel on anything else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as parts:
                return cls(parts["weights"], parts["bias"], tuple(str(x) for x in parts["labels"]))
        except Exception as error:  # damaged archives raise classes of zipfile, zlib and numpy
            raise UnloadableModel(f"head of {len(data)} bytes does not load ({error}): export it again") from error


class ImageModel:
    """A LiteRT backbone and a linear head."""

    def __init__(self, backbone: Backbone, head: LinearHead) -> None:
        self._backbone = backbone
        self._head = head
        self.labels: tuple[str, ...] | None = head.labels
        self.backbone_digest: str | None = backbone.digest

    def predict(self, payload: bytes) -> Answer:
        """Decode, extract features, answer. The head sees the float16 features that travel with a sample."""
        features = self._backbone.features(decode_image(payload, self._backbone.size)).astype(np.float16)
        row = self._head.probabilities(features[np.newaxis].astype(np.float32))[0]
        best = int(row.argmax())
        return Answer(self._head.labels[best], float(row[best]), tuple(float(p) for p in row), features)


class OnnxModel:
    """A scikit-learn pipeline exported to ONNX: float32 [n, features] in."""

    backbone_digest: str | None = None

    def __init__(self, content: bytes, features: Sequence[str], labels: Sequence[str] | None) -> None:
        try:
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
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


def load_model(config: NodeConfig, layers: Mapping[str, bytes], backbone_digest: str | None = None) -> Model:
    """Build a model from the bytes of a release's layers, by role.

    Raises:
        UnloadableModel: a layer is missing or does not load.
    """
    try:
        if config.kind == "image-classifier":
            backbone = Backbone(layers["backbone"], backbone_digest or "")
            return ImageModel(backbone, LinearHead.from_bytes(layers["head"]))
        return OnnxModel(layers["model"], config.feature_names, config.labels)
    except KeyError as error:
        raise UnloadableModel(f"release of {config.service} has no layer {error}: release it again") from error


def make_probe(model: Model, payloads: Sequence[bytes]) -> bytes:
    """Record what ``model`` answers to ``payloads``: the ``probe`` layer that a node checks itself against."""
    import base64

    cases = [{"payload": base64.b64encode(p).decode(), "prediction": model.predict(p).prediction} for p in payloads]
    return json.dumps({"cases": cases}, sort_keys=True).encode()


def run_probe(model: Model, probe: bytes, classifier: bool) -> None:
    """Compare ``model`` with the answers in ``probe``; a number may differ by one part in a thousand.

    Raises:
        FailedProbe: an answer differs; it names the case.
    """
    import base64

    for number, case in enumerate(json.loads(probe)["cases"]):
        got = model.predict(base64.b64decode(case["payload"])).prediction
        want = case["prediction"]
        same = got == want if classifier else np.isclose(float(got), float(want), rtol=1e-3, atol=1e-3)
        if not same:
            raise FailedProbe(f"probe input {number} gave {got}, the release says {want}: release it again")


def read_backbone(path: Path) -> Backbone:
    """Load a LiteRT extractor from a file.

    Raises:
        UnknownBackbone: there is no such file, or it is no image feature extractor.
    """
    from edgeloop.samples.records import digest

    if not path.is_file():
        raise UnknownBackbone(f"backbone file {path} does not exist: name a .tflite file")
    content = path.read_bytes()
    return Backbone(content, digest(content))
