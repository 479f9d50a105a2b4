"""A LiteRT extractor and a linear head, written down once more without edgeloop: a second opinion on its answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np


class Pictures:
    """The files ``backbone.tflite`` and ``head.npz`` of a folder."""

    def __init__(self, folder: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(folder / "backbone.tflite"), num_threads=1)
        self._interpreter.allocate_tensors()
        with np.load(folder / "head.npz", allow_pickle=False) as parts:
            self._weights, self._bias = parts["weights"], parts["bias"]

    def probabilities(self, jpeg: bytes) -> Any:
        """Probability of each label; raises OSError when the bytes are no picture."""
        from PIL import Image

        source, sink = self._interpreter.get_input_details()[0], self._interpreter.get_output_details()[0]
        side = int(source["shape"][1])
        with Image.open(io.BytesIO(jpeg)) as image:
            image.draft("RGB", (side, side))
            pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        self._interpreter.set_tensor(source["index"], pixels[np.newaxis].astype(source["dtype"]))
        self._interpreter.invoke()
        scale, zero = sink["quantization"]
        raw = self._interpreter.get_tensor(sink["index"]).reshape(-1).astype(np.float32)
        features = ((raw - zero) * scale if scale else raw).astype(np.float16).astype(np.float64)
        logits = features @ self._weights + self._bias
        exp = np.exp(logits - logits.max())
        return exp / exp.sum()
