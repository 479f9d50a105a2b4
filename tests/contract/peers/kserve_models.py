"""Three models on KServe's own Python server: ``PYTHON -m …kserve_models FOLDER PORT``, on loopback only."""

from __future__ import annotations

import base64
import pickle
import sys
from pathlib import Path
from typing import Any

import kserve
import kserve.model_server
import numpy as np
from kserve.errors import InvalidInput
from kserve.protocol.rest.server import RESTServer

from tests.contract.peers.pictures import Pictures


class _OnLoopback(RESTServer):  # type: ignore[misc]
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.config.host = "127.0.0.1"


class _Model(kserve.Model):  # type: ignore[misc]
    """Answers rows of numbers or pictures: one output ``name_of_output`` with one row per input."""

    output = "predict"

    def answer(self, inputs: list[Any]) -> Any:
        raise NotImplementedError

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if isinstance(payload, dict):
            return {"predictions": self.answer([self.v1_input(i) for i in payload["instances"]]).tolist()}
        given = payload.inputs[0]
        found = self.answer(list(given.as_numpy()))
        output = kserve.InferOutput(self.output, list(found.shape), "FP64")
        is_binary = bool((payload.parameters or {}).get("binary_data_output"))
        output.set_data_from_numpy(found, binary_data=is_binary)
        # The server's own answer fails without an id.
        return kserve.InferResponse(payload.id or "none", self.name, [output])

    def v1_input(self, instance: Any) -> Any:
        return instance


class Rows(_Model):
    """A fitted scikit-learn pipeline."""

    def __init__(self, name: str, pipeline: Any, output: str) -> None:
        super().__init__(name)
        self._method = getattr(pipeline, output)
        self.output = output
        self.ready = True

    def answer(self, inputs: list[Any]) -> Any:
        return np.asarray(self._method(np.asarray(inputs, dtype=np.float64)), dtype=np.float64)


class Looker(_Model):
    """Pictures as BYTES or ``b64``."""

    output = "probabilities"

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(name)
        self._pictures = Pictures(folder)
        self.ready = True

    def v1_input(self, instance: Any) -> bytes:
        return base64.b64decode(instance["b64"])

    def answer(self, inputs: list[Any]) -> Any:
        try:
            return np.stack([self._pictures.probabilities(_picture(i)) for i in inputs])
        except OSError as error:
            raise InvalidInput(f"that is no picture: {error}") from error


def _picture(element: Any) -> bytes:
    """In JSON an element is base64 text, as binary data it is the picture itself."""
    data = element.encode() if isinstance(element, str) else bytes(element)
    return data if data[:2] in (b"\xff\xd8", b"\x89P") else base64.b64decode(data)


def main(folder: Path, port: int) -> None:
    kserve.model_server.RESTServer = _OnLoopback
    models = [
        Rows("rater", pickle.loads((folder / "rater.pickle").read_bytes()), "predict"),
        Rows("sorter", pickle.loads((folder / "sorter.pickle").read_bytes()), "predict_proba"),
        Looker("looker", folder),
    ]
    kserve.ModelServer(http_port=port, enable_grpc=False).start(models)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
