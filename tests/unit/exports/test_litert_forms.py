"""A backbone in four precisions: each takes the same pixels and gives nearly the same features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models_litert import Backbone
from edgeloop.exports.litert import Form, UnusableExport, export_litert
from tests.unit.learning.tiny import bars, small_backbone

pytest.importorskip("tensorflow")
IMAGES, _ = bars(12)


@pytest.fixture(scope="module")
def keras_model() -> Any:
    return small_backbone()


def kinds(path: Path) -> set[str]:
    """Types of the tensors in a LiteRT file."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    return {np.dtype(t["dtype"]).name for t in interpreter.get_tensor_details() if len(t["shape"]) > 1}


@pytest.mark.parametrize(
    ("form", "has", "least"),
    [("float32", "float32", 0.99999), ("float16", "float16", 0.9999), ("int8", "int8", 0.999)],
)
def test_every_form_takes_pixels_and_agrees(
    tmp_path: Path, keras_model: Any, form: Form, has: str, least: float
) -> None:
    path = tmp_path / "backbone.tflite"
    export_litert(keras_model, path, form, IMAGES)
    backbone = Backbone(path.read_bytes(), "b", 1)
    found = np.stack([backbone.features(image) for image in IMAGES])
    wanted = keras_model(IMAGES, training=False).numpy()
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > least
    assert has in kinds(path)
    assert ("int8" in kinds(path)) == (form == "int8")


def test_whole_numbers_throughout(tmp_path: Path, keras_model: Any) -> None:
    """Floats stand at the very end alone, where features leave."""
    path = tmp_path / "backbone.tflite"
    export_litert(keras_model, path, "int8", IMAGES)
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    floats = [t["index"] for t in interpreter.get_tensor_details() if t["dtype"] == np.float32]
    assert floats == [interpreter.get_output_details()[0]["index"]]
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8


def test_ranges_come_from_the_examples(tmp_path: Path, keras_model: Any) -> None:
    """Black pictures have no ranges to speak of: what was calibrated on them is of no use for others."""
    found = []
    for number, images in enumerate((IMAGES, np.zeros_like(IMAGES), IMAGES)):
        path = tmp_path / f"{number}.tflite"
        export_litert(keras_model, path, "int8", images)
        found.append(path.read_bytes())
    assert found[0] == found[2]
    assert found[0] != found[1]


@pytest.mark.parametrize("images", [None, IMAGES[:0]], ids=["none", "empty"])
def test_whole_numbers_without_examples_are_refused(tmp_path: Path, keras_model: Any, images: Any) -> None:
    with pytest.raises(UnusableExport, match=r"backbone.tflite cannot be int8 without example images"):
        export_litert(keras_model, tmp_path / "backbone.tflite", "int8", images)
    assert list(tmp_path.iterdir()) == []
