"""The same model behind KServe's own Python server, run by an interpreter that has ``kserve`` and ``ai-edge-litert``.

``PYTHON kserve_server.py NAME MODEL HEAD PORT``: the LiteRT extractor and the linear head of a release. Takes pictures
as base64 over V1 and over V2 as JSON; over V2 binary KServe wants BYTES to be UTF-8, which a picture is not.
It imports nothing of edgeloop, which is not installed there.
"""

from __future__ import annotations

import base64
import io
import sys
from typing import Any

import kserve
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


class Pictures(kserve.Model):  # type: ignore[misc]
    """Decodes, extracts features, applies the head."""

    def __init__(self, name: str, model: str, head: str) -> None:
        super().__init__(name)
        self._interpreter = Interpreter(model_path=model, num_threads=1)
        self._interpreter.allocate_tensors()
        self._source = self._interpreter.get_input_details()[0]
        self._sink = self._interpreter.get_output_details()[0]
        with np.load(head, allow_pickle=False) as parts:
            self._weights, self._bias = parts["weights"], parts["bias"]
            self._labels = [str(label) for label in parts["labels"]]
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Both protocols."""
        if isinstance(payload, dict):
            pictures = [base64.b64decode(instance["b64"]) for instance in payload["instances"]]
            return {"predictions": [self._labels[int(self._scores(p).argmax())] for p in pictures]}
        pictures = [base64.b64decode(p) for p in payload.inputs[0].as_numpy().reshape(-1)]
        best = [self._labels[int(self._scores(p).argmax())] for p in pictures]
        output = kserve.InferOutput("prediction", [len(best)], "BYTES", data=best)
        return kserve.InferResponse(response_id=payload.id or "0", model_name=self.name, infer_outputs=[output])

    def _scores(self, picture: bytes) -> Any:
        side = int(self._source["shape"][1])
        with Image.open(io.BytesIO(picture)) as image:
            image.draft("RGB", (side, side))
            pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        self._interpreter.set_tensor(self._source["index"], pixels[np.newaxis].astype(self._source["dtype"]))
        self._interpreter.invoke()
        raw = self._interpreter.get_tensor(self._sink["index"]).reshape(-1)
        scale, zero = self._sink["quantization"]
        features = (raw.astype(np.float32) - zero) * scale if scale else raw
        return features @ self._weights + self._bias


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=int(sys.argv[4]), enable_grpc=False, workers=1)
    server.start([Pictures(*sys.argv[1:4])])
