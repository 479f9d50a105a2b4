"""The way out of TensorFlow: one LiteRT file that turns an image into a feature vector.

Node and cloud alike take features from that file and from nothing else, so it is compared with Keras when it is made.
"""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeloop.errors import EdgeloopError
from edgeloop.exports.tensorflow import load_tensorflow

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Quantize = Literal["dynamic", "float32"]
#: ``int8`` computes in whole numbers throughout, and needs examples; ``float16`` keeps weights at half their size.
Form = Literal["dynamic", "float32", "float16", "int8"]


class UnusableExport(EdgeloopError):
    """The LiteRT file does not compute what the model computes."""


def save_keras(model: Any, path: Path) -> None:
    """Write `model` as one .keras file without the optimizer, whose slots would triple it.

    The same model gives the same bytes, though Keras writes down when it was saved and where its objects lay in memory.
    """
    model.optimizer, model.compiled = None, False
    beside = path.with_name(f".{path.stem}.part.keras")
    model.save(beside)
    _make_repeatable(beside)
    beside.replace(path)


def _make_repeatable(archive: Path) -> None:
    """Rewrite a .keras archive in place without times, and with shared objects numbered as they come."""
    clean = archive.with_name(f".{archive.name}.clean")
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(clean, "w") as sink:
        for name in sorted(source.namelist()):
            content = source.read(name)
            if name.endswith(".json"):
                content = json.dumps(_repeatable(json.loads(content), {}), sort_keys=True).encode()
            sink.writestr(zipfile.ZipInfo(name), content)
    clean.replace(archive)


def _repeatable(told: Any, numbers: dict[int, int]) -> Any:
    if isinstance(told, list):
        return [_repeatable(each, numbers) for each in told]
    if not isinstance(told, dict):
        return told
    kept = {name: _repeatable(each, numbers) for name, each in told.items() if name != "date_saved"}
    if "shared_object_id" in kept:
        kept["shared_object_id"] = numbers.setdefault(kept["shared_object_id"], len(numbers) + 1)
    return kept


def export_litert(backbone: Any, path: Path, quantize: Form = "dynamic", examples: Images | None = None) -> None:
    """Write a LiteRT file: input uint8 [1, s, s, 3], output float32 [1, d].

    "dynamic" keeps weights as int8 and computes them against float activations; no examples are needed for that.
    "int8" takes the ranges of activations from ``examples``, uint8 [n, s, s, 3].

    Raises:
        UnusableExport: "int8" without examples.
    """
    tf, _ = load_tensorflow()
    shape = (1, *backbone.input_shape[1:])
    if quantize == "int8" and (examples is None or not len(examples)):
        raise UnusableExport(f"{path.name} cannot be int8 without example images: give some, or another precision")
    model = _of_floats(backbone) if quantize == "int8" else backbone

    def features(image: Any) -> dict[str, Any]:
        return {"features": model(image, training=False)}

    takes = tf.float32 if quantize == "int8" else tf.uint8
    traced = tf.function(features, input_signature=[tf.TensorSpec(shape, takes, name="image")])
    # No trackable object: with one, variables stay outside the file and the interpreter reads NaN without a word.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()])
    _quantize(tf, converter, quantize, examples)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs")  # pixels need none
        write_whole(path, converter.convert())


def _of_floats(backbone: Any) -> Any:
    """The same model with a float32 input: a cast inside the file would keep its first layers in float."""
    _, keras = load_tensorflow()
    clone = keras.models.clone_model(
        backbone, input_tensors=keras.Input(backbone.input_shape[1:], dtype="float32", name="image")
    )
    clone.set_weights(backbone.get_weights())
    return clone


def _quantize(tf: Any, converter: Any, quantize: Form, examples: Images | None) -> None:
    if quantize != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "int8" and examples is not None:
        converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in examples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type, converter.inference_output_type = tf.uint8, tf.float32


def write_whole(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)


def litert_agreement(backbone: Any, path: Path, images: Images) -> float:
    """Smallest cosine between the features of the LiteRT file and of Keras over uint8 [n, s, s, 3] images.

    Raises UnusableExport when the file yields values that are not numbers.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    source, sink = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    exported = []
    for image in images:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        exported.append(interpreter.get_tensor(sink)[0].copy())
    cosine = _cosines(np.stack(exported), backbone(images, training=False).numpy())
    if not np.isfinite(cosine).all():
        raise UnusableExport(f"{path} yields features that are not numbers: export again with quantize: float32")
    return float(cosine.min())


def _cosines(a: Floats, b: Floats) -> Floats:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(norms, 1e-12), np.float32)
