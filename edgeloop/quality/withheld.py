"""Judge a sample whose raw input stayed at its node: nothing can be decoded, so its features must be beyond doubt."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.clients.models import Backbone, UnknownBackbone, UnloadableModel
from edgeloop.clients.objects import ObjectStore
from edgeloop.samples.inputs import PAYLOAD_DIGEST, extras, is_digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Service


class Backbones:
    """How many features each backbone makes, of those that are in the object store; each is looked up once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._lengths: dict[str, int | None] = {}

    def length(self, name: str) -> int | None:
        """Number of features of the backbone ``name``; None when the store has no such backbone."""
        if name not in self._lengths:
            self._lengths[name] = self._look_up(name)
        return self._lengths[name]

    def _look_up(self, name: str) -> int | None:
        if not is_digest(name) or self._store.size(blob_key(name)) is None:
            return None
        try:
            return Backbone(self._store.get(blob_key(name)), name).length
        except (UnloadableModel, UnknownBackbone):
            return None


def withheld_fault(row: dict[str, Any], service: Service, backbones: Backbones | None) -> str | None:
    """Why a sample without its raw input cannot be learned from; None when it can.

    Args:
        row: of the samples table.
        service: that it belongs to.
        backbones: those that are known; None where nobody can say.
    """
    named = extras(row)[PAYLOAD_DIGEST]
    if not is_digest(named):
        return f"{PAYLOAD_DIGEST} is {named!r:.80}, not sha256: and 64 hexadecimal digits"
    if service.image is None:
        return f"sample has no raw input, which a {service.kind} needs: set selection.payload to raw or both"
    embedding, backbone = row["embedding"] or b"", row["backbone_digest"]
    if not embedding or backbone is None:
        return "sample has no raw input and no embedding with its backbone_digest: send one of the two"
    if len(embedding) % 2:
        return f"embedding has {len(embedding)} bytes, which are no float16 numbers"
    if not np.isfinite(np.frombuffer(embedding, dtype="<f2")).all():
        return "embedding has numbers that are not finite"
    return _space_fault(len(embedding) // 2, str(backbone), backbones)


def _space_fault(count: int, backbone: str, backbones: Backbones | None) -> str | None:
    if backbones is None:
        return None
    length = backbones.length(backbone)
    if length is None:
        return f"embedding is of backbone {backbone:.80}, which is not known here"
    return None if count == length else f"embedding has {count} features, its backbone makes {length}"


def digest_fault(row: dict[str, Any], seen: str) -> str | None:
    """Why ``payload_digest`` does not fit the raw input that came with it (digest ``seen``); None when it does."""
    named = extras(row).get(PAYLOAD_DIGEST, seen)
    return None if named == seen else f"{PAYLOAD_DIGEST} is {named!r:.80}, the payload has {seen}"
