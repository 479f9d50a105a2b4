"""What a trained Keras backbone makes of images, in a process of its own: TensorFlow never gives its memory back.

The gate compares it with the exported backbone. The parent writes ``backbone.keras`` and ``images.npy`` into a folder;
the child, ``python -m edgeloop.learning.gate_keras FOLDER``, leaves ``features.npy`` there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import EdgeloopError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 16


class KerasSilent(EdgeloopError):
    """The process that runs the Keras backbone left no features."""


def keras_features(content: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features of uint8 [n, side, side, 3] images by the bytes of a .keras file: float32 [n, features].

    Raises:
        KerasSilent: the process failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory(prefix="edgeloop-keras-") as name:
        folder = Path(name)
        (folder / "backbone.keras").write_bytes(content)
        np.save(folder / "images.npy", images)
        here = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        quiet = {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
        command = [sys.executable, "-m", "edgeloop.learning.gate_keras", str(folder)]
        done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
            raise KerasSilent(f"the Keras backbone could not be run ({last}): check that the train extra is installed")
        return np.asarray(np.load(folder / "features.npy"), dtype=np.float32)


def main(folder: Path) -> None:
    """The child: features of all images, in batches."""
    from edgeloop.exports.tensorflow import load_tensorflow

    _, keras = load_tensorflow()
    backbone = keras.models.load_model(folder / "backbone.keras", compile=False)
    images = np.load(folder / "images.npy")
    parts = [backbone(images[i : i + _BATCH], training=False).numpy() for i in range(0, len(images), _BATCH)]
    np.save(folder / "features.npy", np.concatenate(parts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
