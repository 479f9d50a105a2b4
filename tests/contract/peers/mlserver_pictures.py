"""An image model as MLServer runs it; the folder with its files is the model's ``uri``."""

from __future__ import annotations

from pathlib import Path

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.codecs.base64 import Base64Codec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

from tests.contract.peers.pictures import Pictures


class Looker(MLModel):  # type: ignore[misc]
    """Pictures as BYTES, base64 in JSON."""

    async def load(self) -> bool:
        self._pictures = Pictures(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        import numpy as np

        try:
            rows = [self._pictures.probabilities(p) for p in Base64Codec.decode_input(payload.inputs[0])]
        except OSError as error:
            raise InferenceError(f"that is no picture: {error}") from error
        output = NumpyCodec.encode_output("probabilities", np.stack(rows))
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])
