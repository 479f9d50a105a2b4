"""What an input is to the gateway, and what of it is kept: its bytes, what the model made of them, or both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np

from edgeloop.clients.models import Answer
from edgeloop.edge.runtime import Loaded
from edgeloop.edge.selection.selector import Choice
from edgeloop.errors import EdgeloopError
from edgeloop.samples.inputs import PAYLOAD_DIGEST
from edgeloop.samples.payloads import UndecodablePayload, canonical_features
from edgeloop.samples.records import Sample, digest, sample_name
from edgeloop.samples.service import NodeConfig

_DEFAULT_MAX_BYTES = 8_000_000


class NothingToKeep(EdgeloopError):
    """The policy keeps embeddings only, and the model gave none: a raw input must not leave the node."""


class OversizedPayload(UndecodablePayload):
    """More bytes than the service takes; they are not even looked at."""


@dataclass(frozen=True)
class Input:
    """One input on its way through the gateway."""

    service: str
    device: str
    payload: bytes
    at: datetime
    skewed: bool = False
    """Its capture time is not to be believed."""

    @cached_property
    def payload_digest(self) -> str:
        """``sha256:<hex>`` of the payload."""
        return digest(self.payload)

    @cached_property
    def sample_id(self) -> str:
        """The sample's name."""
        return sample_name(self.service, self.device, self.at, self.payload_digest)


@dataclass(frozen=True)
class Kept:
    """What leaves the node of an input that is chosen."""

    payload: bytes
    embedding: bytes | None

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.payload) + len(self.embedding or b"")


def max_bytes(config: NodeConfig | None) -> int:
    """Largest payload of a service in bytes; None is one that has no release yet."""
    return config.image.max_bytes if config is not None and config.image else _DEFAULT_MAX_BYTES


def canonical_payload(config: NodeConfig, payload: bytes) -> bytes:
    """The payload as it is kept: images as they came, feature rows as canonical JSON in the model's order.

    Raises:
        OversizedPayload: over the service's ``max_bytes``.
        UndecodablePayload: no feature row.
    """
    limit = max_bytes(config)
    if len(payload) > limit:
        raise OversizedPayload(f"payload has {len(payload)} bytes and may have {limit}: send a smaller one")
    if config.kind == "image-classifier":
        return payload
    return canonical_features(payload, config.feature_names)


def what_to_keep(asked: Input, answer: Answer, config: NodeConfig) -> Kept:
    """By the policy's ``payload``; raises NothingToKeep where that is an embedding and there is none."""
    mode = config.selection.payload
    if mode == "raw":
        return Kept(asked.payload, None)
    embedding = None if answer.embedding is None else answer.embedding.astype(np.dtype("<f2")).tobytes()
    if mode == "both":
        return Kept(asked.payload, embedding)
    if embedding is None:
        raise NothingToKeep(f"the model of {asked.service} gives no embedding and payload is embedding: mend its YAML")
    return Kept(b"", embedding)


def make_sample(node: str, asked: Input, answer: Answer, loaded: Loaded, choice: Choice, kept: Kept) -> Sample:
    """The record of a chosen input."""
    more: dict[str, Any] = {} if kept.payload else {PAYLOAD_DIGEST: asked.payload_digest}
    if asked.skewed:
        more["clock_skew"] = True
    return Sample(
        sample_id=asked.sample_id,
        service=asked.service,
        device=asked.device,
        node=node,
        captured_at=asked.at,
        payload=kept.payload,
        embedding=kept.embedding,
        backbone_digest=None if kept.embedding is None else loaded.model.backbone_digest,
        model_digest=loaded.release,
        prediction=answer.prediction,
        confidence=answer.confidence,
        selected_by=str(choice.selected_by),
        selection_probability=choice.probability,
        group=asked.payload_digest,
        **more,
    )
