"""A release as nodes see it: a manifest that names its layers by digest, and the channel that names the release.

Layers are blobs under their own digest, so that an unchanged backbone is the same blob for ever and a new head
costs kilobytes.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.errors import BadInput
from edgeloop.samples.profiles import Precision, Runtime
from edgeloop.samples.records import Record, canonical, digest, hexdigest

Role = Literal["backbone", "head", "model", "config", "probe"]
#: The name of a blob or manifest; strict, because object keys and paths on nodes are made of it.
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class MalformedRelease(BadInput):
    """Bytes that should be a release manifest or a channel record are not."""


class NoVariant(BadInput):
    """A release has nothing for this hardware profile."""


class Layer(BaseModel):
    """One immutable blob of a release."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: Role
    """``backbone`` (LiteRT) and ``head`` (npz) of an image model, or ``model`` (ONNX) of a tabular one; ``config``
    (JSON, :class:`~edgeloop.samples.service.NodeConfig`); ``probe`` (JSON inputs with the answers expected)."""
    digest: Digest
    size: int = Field(ge=0)
    media_type: str


class Variant(BaseModel):
    """A release's model for one hardware profile."""

    model_config = ConfigDict(extra="allow", frozen=True)

    profile: str
    runtime: Runtime
    precision: Precision
    layers: list[Layer]
    """All that a node of the profile loads, its own probe with it; an unchanged layer has the release's digest."""
    agreement: float
    """Share of inputs on which it answered as the trained model does."""
    compared: int
    """How many inputs that were."""


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
    variants: list[Variant] = Field(default_factory=list)

    def to_bytes(self) -> bytes:
        """The manifest's canonical bytes; their digest is the release's name.

        Without variants they are left out, as before there were any: releases of that time keep their digests.
        """
        return canonical(self.model_dump(mode="json", exclude=None if self.variants else {"variants"}))

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the manifest."""
        return digest(self.to_bytes())

    def layer(self, role: Role) -> Layer | None:
        """The layer with this role, if the release has one."""
        return next((layer for layer in self.layers if layer.role == role), None)

    def layers_for(self, profile: str | None) -> list[Layer]:
        """What a node of ``profile`` loads; without variants, or without a profile, the model as it was trained.

        Raises:
            NoVariant: the release has variants, and none for ``profile``.
        """
        if profile is None or not self.variants:
            return self.layers
        for variant in self.variants:
            if variant.profile == profile:
                return variant.layers
        known = ", ".join(v.profile for v in self.variants)
        raise NoVariant(
            f"release {self.digest} of {self.service} has no variant for profile {profile!r}, only {known}:"
            f" add it to delivery.profiles of {self.service}"
        )


class Next(BaseModel):
    """The release that a ring is moving to, batch by batch."""

    model_config = ConfigDict(extra="allow", frozen=True)

    release: Digest
    salt: str
    """Of this rollout; with it a node finds its place, see ``edgeloop.samples.cohorts``."""
    below: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Nodes whose place is below it switch; the others fetch and verify, and wait."""


class Wanted(Record):
    """The channel record of one ring: which release its nodes should run.

    One record serves a ring of any size: a batch is a bound on nodes' places, not a list of them.
    """

    service: str
    ring: int
    release: Digest
    """Digest of the release's manifest."""
    sequence: int = Field(ge=0)
    """Grows with each change. It guards against no old record; the signatures of the channel do."""
    next: Next | None = None
    """On its way in: staged by all nodes of the ring, run by those of its batches."""
    wish: str | None = None
    """Names the wish for ``release``: the salt of the rollout that brought it, or the sequence number at which it was
    named. A release that a node refused is tried again there when it is wanted by another wish."""

    @property
    def wish_for_release(self) -> str:
        """``wish``; in a record from before there was one, each sequence number is a new wish."""
        return wish_at(self.sequence) if self.wish is None else self.wish

    def to_bytes(self) -> bytes:
        """Canonical bytes, as they are signed; without ``next`` and ``wish`` as before there were any."""
        left_out = {name for name in ("next", "wish") if getattr(self, name) is None}
        return canonical(self.model_dump(mode="json", exclude=left_out))


def wish_at(sequence: int) -> str:
    """Name of a wish that began with this sequence number, and not as a rollout; no rollout's salt looks like it."""
    return f"at {sequence}"


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
