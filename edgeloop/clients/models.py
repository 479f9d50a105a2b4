"""A packaged model behind one protocol, so that the node that serves it and the cloud that judges it run the same code.

What is evaluated is what is deployed: the exported LiteRT backbone with its head, or the exported ONNX pipeline.
Neither needs TensorFlow or scikit-learn. A model server beside the node is a model too.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeloop.clients.endpoints import Endpoint, ModelUnavailable, RemoteModel
from edgeloop.clients.model_heads import Head, HiddenHead, LinearHead, read_head
from edgeloop.clients.model_types import Answer, MalformedAnswer, Model, UnloadableModel
from edgeloop.clients.models_litert import Backbone, ImageModel, UnknownBackbone, read_backbone
from edgeloop.clients.models_onnx import CLASSES, OnnxModel
from edgeloop.clients.probes import FailedProbe, make_probe, run_probe, small_input
from edgeloop.samples.service import NodeConfig

__all__ = [
    "CLASSES",
    "Answer",
    "Backbone",
    "Endpoint",
    "FailedProbe",
    "Head",
    "HiddenHead",
    "ImageModel",
    "LinearHead",
    "MalformedAnswer",
    "Model",
    "ModelUnavailable",
    "OnnxModel",
    "RemoteModel",
    "UnknownBackbone",
    "UnloadableModel",
    "load_model",
    "make_probe",
    "read_backbone",
    "read_head",
    "run_probe",
    "small_input",
]


def load_model(
    config: NodeConfig,
    layers: Mapping[str, bytes],
    backbone_digest: str | None = None,
    *,
    endpoint: Endpoint | None = None,
    interpreters: int | None = None,
) -> Model:
    """Build a model from the bytes of a release's layers, by role; with an ``endpoint``, from what serves there.

    ``interpreters`` is how many images a LiteRT model takes at once; one per core (at most 4) if None.

    Raises:
        UnloadableModel: a layer is missing or does not load, or the server does not know the model.
        ModelUnavailable: the server at ``endpoint`` does not answer, or is not ready yet.
    """
    if endpoint is not None:
        return RemoteModel(endpoint, config)
    try:
        if config.kind == "image-classifier":
            backbone = Backbone(layers["backbone"], backbone_digest or "", interpreters)
            return ImageModel(backbone, read_head(layers["head"]))
        return OnnxModel(layers["model"], config.feature_names, config.labels)
    except KeyError as error:
        raise UnloadableModel(f"release of {config.service} has no layer {error}: release it again") from error
