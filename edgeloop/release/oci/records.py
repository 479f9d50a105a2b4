"""What an image is made of besides its bytes: the JSON records of the OCI image specification (v1.0).

They are written one way only, so that the same release is the same image for whoever builds it.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from edgeloop.clients.oci_types import CONFIG, INDEX, LAYER, MANIFEST
from edgeloop.errors import BadInput
from edgeloop.samples.records import canonical, digest

Arch = Literal["amd64", "arm64"]
#: Images have no time of their own: it would be the only thing that differs between two builds.
NO_TIME = "1970-01-01T00:00:00Z"


class MalformedImage(BadInput):
    """A record of an image does not parse."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, alias_generator=to_camel, populate_by_name=True)

    def to_bytes(self) -> bytes:
        """Canonical JSON; what is not set is left out."""
        return canonical(self.model_dump(mode="json", by_alias=True, exclude_none=True))


class Platform(_Record):
    """What an image runs on."""

    architecture: str
    os: str = "linux"
    variant: str | None = None


class Descriptor(_Record):
    """Names a blob or manifest."""

    media_type: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Manifest(_Record):
    """One image: its configuration and its layers, the lowest first."""

    schema_version: Literal[2] = 2
    media_type: str = MANIFEST
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


class Index(_Record):
    """The images of one name, one for each platform."""

    schema_version: Literal[2] = 2
    media_type: str = INDEX
    manifests: list[Descriptor]
    annotations: dict[str, str] | None = None


class History(_Record):
    """How a layer came to be, for people."""

    model_config = ConfigDict(alias_generator=None)

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class RootFs(_Record):
    """Digests of the layers as they are unpacked."""

    model_config = ConfigDict(alias_generator=None)

    type: Literal["layers"] = "layers"
    diff_ids: list[str]


class ImageConfig(_Record):
    """How an image is run. ``config`` has Docker's field names: Entrypoint, Cmd, Env, User, ExposedPorts, Labels."""

    model_config = ConfigDict(alias_generator=None)

    architecture: str
    os: str = "linux"
    created: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    rootfs: RootFs
    history: list[History] | None = None


_T = TypeVar("_T", bound=_Record)


def read_index(data: bytes, where: str) -> Index:
    """Parse an index, OCI's or Docker's; raises MalformedImage naming ``where``."""
    return _read(Index, data, where)


def read_manifest(data: bytes, where: str) -> Manifest:
    """Parse a manifest, OCI's or Docker's; raises MalformedImage naming ``where``."""
    return _read(Manifest, data, where)


def read_config(data: bytes, where: str) -> ImageConfig:
    """Parse an image's configuration; raises MalformedImage naming ``where``."""
    return _read(ImageConfig, data, where)


def _read(kind: type[_T], data: bytes, where: str) -> _T:
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(p) for p in first["loc"]) or "text"
        raise MalformedImage(f"{where} does not parse ({field}: {first['msg']:.150}): is it an image?") from error


def describe(record: Manifest | Index | ImageConfig, platform: Platform | None = None) -> Descriptor:
    """The descriptor of a record's canonical bytes."""
    data = record.to_bytes()
    media = CONFIG if isinstance(record, ImageConfig) else record.media_type
    return Descriptor(media_type=media, digest=digest(data), size=len(data), platform=platform)


def describe_layer(data: bytes, title: str) -> Descriptor:
    """The descriptor of an uncompressed layer; its digest is also the one that it has when it is unpacked."""
    return Descriptor(
        media_type=LAYER, digest=digest(data), size=len(data), annotations={"org.opencontainers.image.title": title}
    )
