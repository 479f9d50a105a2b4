"""After a full training the gate compares the exported backbone with the Keras one, on raw inputs of gate samples."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeloop.clients.models import LinearHead
from edgeloop.clients.objects import MemoryStore
from edgeloop.learning import measure
from edgeloop.learning.gate_budgets import Agreement
from edgeloop.learning.gate_keras import KerasSilent, keras_features
from edgeloop.learning.gate_models import DamagedCandidate, Pair, load_packaged
from edgeloop.learning.train import Candidate, put_blob
from edgeloop.samples.records import Sample
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.table import Tables
from tests.unit.samples.make import looker, sample

pytest.importorskip("tensorflow")

#: A backbone whose three features are the mean red, green and blue, 0 to 1; its export is the same or another one.
MAKE = """
import sys
from pathlib import Path
from edgeloop.exports.litert import export_litert, save_keras
from edgeloop.exports.tensorflow import load_tensorflow
_, keras = load_tensorflow()
image = keras.Input((16, 16, 3), dtype="uint8")
mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
model = keras.Model(image, mean)
folder = Path(sys.argv[1])
export_litert(model, folder / "backbone.tflite", "float32")
save_keras(model, folder / "backbone.keras")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True, capture_output=True)
    return folder


def coloured(number: int) -> bytes:
    """A picture of one colour, more red than blue or the other way round."""
    red, blue = (200, 60) if number % 2 else (60, 200)
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), (red, number, blue)).save(sink, "PNG")
    return sink.getvalue()


class Full:
    """A candidate of ``mode: full`` and the gate samples of its service."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.tables = Tables("looker", self.store.table)
        self.service = looker(image={"size": 16})
        samples = [sample(n, "looker", coloured(n), prediction="cat") for n in range(40)]
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        self.ids = [s.sample_id for s in samples]
        head = LinearHead(np.array([[0, 9], [0, 0], [9, 0]], np.float32), np.zeros(2, np.float32), ("cat", "dog"))
        layers = {
            "backbone": put_blob(self.store, (folder / "backbone.tflite").read_bytes()),
            "keras": put_blob(self.store, (folder / "backbone.keras").read_bytes()),
            "head": put_blob(self.store, head.to_bytes()),
        }
        values: dict[str, Any] = {"dataset": "d", "base": None, "seed": 0, "trained_on": {}, "seconds": 0.0}
        self.candidate = Candidate(key="k", service="looker", mode="full", layers=layers, **values)

    def agreed(self, answers: Any = None) -> Agreement | None:
        pair = Pair(load_packaged(self.store, self.service, self.candidate.layers), None)
        right = np.asarray([float(n % 2) for n in range(40)])
        return measure.export_agreement(
            self.store,
            self.tables,
            self.service,
            self.candidate,
            pair,
            self.ids,
            right if answers is None else answers,
            {},
        )


def test_an_export_of_the_same_backbone_agrees(made: Path) -> None:
    assert Full(made).agreed() == Agreement(samples=40, share=1, trained="keras")


def test_an_export_that_answers_otherwise_does_not(made: Path) -> None:
    assert Full(made).agreed(np.zeros(40)) == Agreement(samples=40, share=0.5, trained="keras")


def test_a_keras_file_that_is_damaged_is_the_candidates_damage(made: Path) -> None:
    full = Full(made)
    full.store.delete(blob_key(full.candidate.layers["keras"]))
    with pytest.raises(DamagedCandidate, match="run again, it is made anew"):
        full.agreed()


def test_a_file_that_keras_cannot_read_is_said() -> None:
    with pytest.raises(KerasSilent, match="the Keras backbone could not be run"):
        keras_features(b"no", np.zeros((1, 8, 8, 3), np.uint8))


def test_of_samples_that_stayed_at_their_node_nothing_is_compared(made: Path) -> None:
    full = Full(made)
    full.ids = []
    assert full.agreed(np.zeros(0)) is None
