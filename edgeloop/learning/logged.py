"""How a candidate looks in MLflow: a scikit-learn pipeline as such, an image model as a pyfunc around its layers.

The pyfunc runs the very layers that nodes run, so that what a data scientist tries in a notebook is what the fleet
would answer.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgeloop import __version__
from edgeloop.samples.payloads import decode_features
from edgeloop.samples.service import NodeConfig, Service


class LoggedPipeline:
    """A tabular candidate: the fitted estimator, with its ONNX export beside it."""

    def __init__(self, service: Service, pickled: bytes, onnx: bytes, example: bytes) -> None:
        self._service = service
        self._pickled = pickled
        self._onnx = onnx
        self._example = example

    def log(self, name: str, registered: str) -> str:
        """Log to the open run and register; return the version."""
        import pickle

        import mlflow
        import pandas as pd
        from mlflow.models import infer_signature

        names = self._service.feature_names
        example = pd.DataFrame([decode_features(self._example, names).astype(float)], columns=names)
        estimator = pickle.loads(self._pickled)  # noqa: S301 - written by this program, under its digest
        answer = estimator.predict(example.to_numpy(dtype=np.float32))
        info = mlflow.sklearn.log_model(
            estimator,
            name=name,
            signature=infer_signature(example, answer),
            input_example=example,
            registered_model_name=registered,
            pip_requirements=["scikit-learn", "numpy", "pandas"],
            serialization_format="cloudpickle",
        )
        mlflow.log_text(f"{len(self._onnx)} bytes\n", "evaluation/onnx-size.txt")
        return str(info.registered_model_version)


class LoggedImageModel:
    """An image candidate: backbone, head and node configuration behind MLflow's ``predict``."""

    def __init__(
        self, service: Service, layers: dict[str, bytes], backbone_digest: str, example: bytes, folder: Path
    ) -> None:
        self._service = service
        self._layers = layers
        self._backbone_digest = backbone_digest
        self._example = example
        self._folder = folder

    def log(self, name: str, registered: str) -> str:
        """Log to the open run and register; return the version."""
        import mlflow
        import pandas as pd
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, DataType, Schema

        signature = ModelSignature(
            inputs=Schema([ColSpec(DataType.binary, "image")]),
            outputs=Schema([ColSpec(DataType.string, "prediction"), ColSpec(DataType.double, "confidence")]),
        )
        info = mlflow.pyfunc.log_model(
            name=name,
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts=self._write(),
            signature=signature,
            input_example=pd.DataFrame({"image": [self._example]}),
            registered_model_name=registered,
            pip_requirements=[f"edgeloop=={__version__}", "pandas"],
        )
        return str(info.registered_model_version)

    def _write(self) -> dict[str, str]:
        config: NodeConfig = self._service.node_config()
        parts = {
            "backbone": self._layers["backbone"],
            "head": self._layers["head"],
            "config": json.dumps(config.model_dump(mode="json") | {"backbone": self._backbone_digest}).encode(),
        }
        paths = {role: self._folder / role for role in parts}
        for role, data in parts.items():
            paths[role].write_bytes(data)
        return {role: str(path) for role, path in paths.items()}
