"""The releases that travel: one, the same with a new head, one whose backbone was trained too, and two more heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeloop.bench.edge_release import jpeg_of
from edgeloop.clients.model_heads import media_type
from edgeloop.clients.models import Backbone, LinearHead, load_model, make_probe
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import BadInput
from edgeloop.learning.heads import rounded
from edgeloop.release.optimise.variants import MEDIA, PROBES
from edgeloop.samples.records import canonical, digest
from edgeloop.samples.releases import Layer, Release, Role, blob_key, release_key
from edgeloop.samples.service import ImageInput, NodeConfig

SERVICE = "bench-delivery"
#: Numbers in a tensor from which on it is taken for weights.
_WEIGHTS = 256
#: By how much a weight in floating point is moved by a fine-tune, relative to the spread of its tensor,
_MOVED = 0.01
#: and which share of quantised weights is moved by one step.
_STEPPED = 0.3
_Kind = type[np.float32] | type[np.uint8] | type[np.int8]


class NoWeights(BadInput):
    """A backbone cannot be trained further, not even in appearance."""


@dataclass(frozen=True)
class Line:
    """Releases of one service in a store, in the order of their making."""

    first: Release
    head: Release
    full: Release
    batched: Release
    """A new head on the backbone of ``full``,"""
    last: Release
    """and one more."""
    features: int

    @property
    def releases(self) -> tuple[Release, ...]:
        """All of them."""
        return self.first, self.head, self.full, self.batched, self.last

    @property
    def roles(self) -> dict[str, str]:
        """Role of each blob by digest."""
        return {la.digest: la.role for one in self.releases for la in one.layers}


def make_line(store: ObjectStore, backbone: bytes, labels: int) -> Line:
    """Write the releases.

    A head retrained is the head before, each weight moved by a tenth of their spread; a backbone trained further is
    moved by :func:`fine_tuned`. Both are simulated: what decides about bytes is that every weight is another one.

    Raises:
        UnloadableModel: the backbone is no LiteRT extractor.
    """
    read = Backbone(backbone, digest(backbone), 1)
    heads = [_head(read.length, labels, moves) for moves in range(5)]
    moved = fine_tuned(backbone, 0)
    backbones = (backbone, backbone, moved, moved, moved)
    made = [_write(store, *parts, read.size, n) for n, parts in enumerate(zip(backbones, heads, strict=True), start=1)]
    first, second, third, fourth, fifth = made
    return Line(first, second, third, fourth, fifth, read.length)


def _head(features: int, labels: int, moves: int) -> LinearHead:
    rng = np.random.default_rng(0)
    weights = rng.normal(scale=0.05, size=(features, labels))
    for _ in range(moves):
        weights += rng.normal(scale=0.005, size=weights.shape)
    names = tuple(f"label-{number}" for number in range(labels))
    return LinearHead(rounded(weights), np.zeros(labels, np.float32), names)


def _write(store: ObjectStore, backbone: bytes, head: LinearHead, size: int, number: int) -> Release:
    """Layers and manifest as a release of an image service has them, with photos that no other one is probed with."""
    config = NodeConfig(service=SERVICE, kind="image-classifier", image=ImageInput(size=size), labels=list(head.labels))
    contents: dict[Role, bytes] = {"backbone": backbone, "head": head.to_bytes()}
    model = load_model(config, {str(r): data for r, data in contents.items()}, digest(backbone), interpreters=1)
    contents["config"] = canonical(config.model_dump(mode="json"))
    contents["probe"] = make_probe(model, [jpeg_of(number * PROBES + seed) for seed in range(PROBES)])
    layers = [_layer(role, data) for role, data in contents.items()]
    for data in contents.values():
        store.create(blob_key(digest(data)), data)
    judged = {"verdict": "promote", "reason": "accuracy 0.912 of 0.897, lower bound of the gain 0.003"}
    release = Release(
        service=SERVICE,
        version=str(number),
        run_id="0" * 32,
        dataset=f"{SERVICE}-v{number}",
        layers=layers,
        evaluation=judged,
    )
    store.create(release_key(SERVICE, release.digest), release.to_bytes())
    return release


def _layer(role: Role, data: bytes) -> Layer:
    media = media_type(data) if role == "head" else MEDIA[role]
    return Layer(role=role, digest=digest(data), size=len(data), media_type=media)


def fine_tuned(backbone: bytes, seed: int) -> bytes:
    """A LiteRT model with every weight tensor moved a little: floats by noise, quantised ones by a step here and there.

    Raises:
        NoWeights: there are no weights in it.
    """
    from ai_edge_litert import schema_py_generated as schema

    rng = np.random.default_rng(seed)
    data = bytearray(backbone)
    model = schema.Model.GetRootAs(data, 0)
    kinds: dict[int, _Kind] = {
        schema.TensorType.FLOAT32: np.float32,
        schema.TensorType.UINT8: np.uint8,
        schema.TensorType.INT8: np.int8,
    }
    graph, moved = model.Subgraphs(0), set[int]()
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        buffer = model.Buffers(tensor.Buffer())
        kind = kinds.get(tensor.Type())
        if kind is None or tensor.Buffer() in moved or buffer.DataLength() < _WEIGHTS * np.dtype(kind).itemsize:
            continue
        _move(buffer.DataAsNumpy(), kind, rng)
        moved.add(tensor.Buffer())
    if not moved:
        raise NoWeights("the backbone has no weights of float32 or 8 bits to train further: name another one")
    return bytes(data)


def _move(data: NDArray[np.uint8], kind: _Kind, rng: np.random.Generator) -> None:
    """Move the weights of this kind in ``data``, in place: it is a part of the model's bytes."""
    if kind is np.float32:
        floats = data.view(np.float32)
        floats += rng.normal(scale=_MOVED * float(floats.std()), size=floats.shape).astype(np.float32)
        return
    step = rng.choice([-1, 0, 1], size=data.shape, p=[_STEPPED / 2, 1 - _STEPPED, _STEPPED / 2])
    low, high = (0, 255) if kind is np.uint8 else (-128, 127)
    data[:] = np.clip(data.view(kind).astype(np.int16) + step, low, high).astype(kind).view(np.uint8)
