"""The code that MLflow stores with an image model and runs when the model is loaded; it is not imported by edgeloop."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class EdgeloopImageModel(PythonModel):  # type: ignore[misc]
    """Answers a frame with one binary column ``image`` with ``prediction`` and ``confidence``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the exported layers."""
        from edgeloop.clients.models import load_model
        from edgeloop.samples.service import NodeConfig

        layers = {role: Path(path).read_bytes() for role, path in context.artifacts.items()}
        config = json.loads(layers["config"])
        self._model = load_model(NodeConfig.model_validate(config), layers, config["backbone"])

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame) -> pd.DataFrame:
        """One answer per row of ``model_input``."""
        answers = [self._model.predict(bytes(image)) for image in model_input["image"]]
        return pd.DataFrame(
            {"prediction": [a.prediction for a in answers], "confidence": [float(a.confidence or 0) for a in answers]}
        )


mlflow.models.set_model(EdgeloopImageModel())
