"""A release as nodes see it: a manifest that names its layers by digest, and the channel that names the release.

Layers are blobs under their own digest, so that an unchanged backbone is the same blob for ever and a new head
costs kilobytes.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.errors import BadInput
from edgeloop.samples.records import Record, canonical, digest, hexdigest

Role = Literal["backbone", "head", "model", "config", "probe"]
#: The name of a blob or manifest; strict, because object keys and paths on nodes are made of it.
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class MalformedRelease(BadInput):
    """Bytes that should be a release manifest or a channel record are not."""


class Layer(BaseModel):
    """One immutable blob of a release."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Role
    """``backbone`` (LiteRT) and ``head`` (npz) of an image model, or ``model`` (ONNX) of a tabular one; ``config``
    (JSON, :class:`~edgeloop.samples.service.NodeConfig`); ``probe`` (JSON inputs with the answers expected)."""
    digest: Digest
    size: int = Field(ge=0)
    media_type: str


class Release(Record):
    """A champion packaged and named by digest."""

    service: str
    version: str
    """MLflow model version."""
    run_id: str
    dataset: str
    """Dataset version that the model was trained on."""
    layers: list[Layer]
    evaluation: dict[str, Any] = Field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The manifest's canonical bytes; their digest is the release's name."""
        return canonical(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the manifest."""
        return digest(self.to_bytes())

    def layer(self, role: Role) -> Layer | None:
        """The layer with this role, if the release has one."""
        return next((layer for layer in self.layers if layer.role == role), None)


class Wanted(Record):
    """The channel record of one ring: which release its nodes should run."""

    service: str
    ring: int
    release: Digest
    """Digest of the release's manifest."""
    sequence: int = Field(ge=0)
    """Grows with each change, so that a release that is wanted again is a new wish: it is tried again where it was
    refused. It guards against no old record; the signatures of the channel do."""


def blob_key(name: str) -> str:
    """Object key of the blob named ``sha256:<hex>``."""
    return f"blobs/sha256/{hexdigest(name)}"


def release_key(service: str, name: str) -> str:
    """Object key of a release manifest."""
    return f"releases/{service}/{hexdigest(name)}.json"


def metadata_key(name: str) -> str:
    """Object key of a metadata file of the signed channel: ``timestamp.json``, ``<version>.<role>.json``."""
    return f"channel/{name}"


def wanted_target(service: str, ring: int) -> str:
    """Target path of the record of ``ring``, signed by ``rings-<service>``."""
    return f"rings/{service}/ring-{ring}.json"


def wanted_object(service: str, ring: int, name: str) -> str:
    """Object key of the record of ``ring`` with the digest ``name``; its content never changes."""
    return f"channel/targets/rings/{service}/{hexdigest(name)}.ring-{ring}.json"


def parse_release(data: bytes, name: str) -> Release:
    """Read a manifest and check that its bytes are the ones named.

    Raises:
        MalformedRelease: the digest does not match, or the manifest does not parse.
    """
    if digest(data) != name:
        raise MalformedRelease(f"release {name}: its bytes have digest {digest(data)}: fetch it again")
    try:
        return Release.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise MalformedRelease(f"release {name} does not parse ({error!s:.200}): publish it again") from error


def parse_wanted(data: bytes, key: str) -> Wanted:
    """Read a channel record.

    Raises:
        MalformedRelease: it does not parse.
    """
    try:
        return Wanted.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise MalformedRelease(f"channel record {key} does not parse ({error!s:.200}): publish it again") from error
