"""The way out of TensorFlow: one LiteRT file that turns an image into a feature vector.

Node and cloud alike take features from that file and from nothing else, so it is compared with Keras when it is made.
"""

from __future__ import annotations

import json
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


def export_litert(backbone: Any, path: Path, quantize: Quantize = "dynamic") -> None:
    """Write a LiteRT file: input uint8 [1, s, s, 3], output float32 [1, d].

    "dynamic" keeps weights as int8 and computes them against float activations; no examples are needed for that.
    """
    tf, _ = load_tensorflow()
    shape = (1, *backbone.input_shape[1:])

    def features(image: Any) -> dict[str, Any]:
        return {"features": backbone(image, training=False)}

    traced = tf.function(features, input_signature=[tf.TensorSpec(shape, tf.uint8, name="image")])
    # No trackable object: with one, variables stay outside the file and the interpreter reads NaN without a word.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()])
    if quantize == "dynamic":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    write_whole(path, converter.convert())


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
