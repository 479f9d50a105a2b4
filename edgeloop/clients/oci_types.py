"""What every image registry promises, in types: the protocol, what is sent to it, and the ways it can fail.

Apart from the adapters, so that each of them can raise these errors without knowing the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from edgeloop.errors import BadInput, EdgeloopError, Unavailable

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({INDEX, DOCKER_INDEX})
MANIFESTS = (INDEX, MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST)
#: Registries refuse larger manifests; a larger one is not read.
LARGEST_MANIFEST = 4 << 20


class RegistryUnavailable(Unavailable):
    """The image registry did not answer, or answered that it cannot."""


class RegistryDenied(EdgeloopError):
    """The image registry did not let us in, or not do this."""


class RegistryRefused(EdgeloopError):
    """The image registry would not take what was sent, or answered what the protocol does not know."""


class DigestDiffers(EdgeloopError):
    """Bytes, or the registry's word for them, are not those of the digest that was asked for."""


class ImageMissing(BadInput):
    """The registry or layout has no such image or blob."""


class PlainHttp(BadInput):
    """Credentials or images would travel to another machine unencrypted."""


class Source(Protocol):
    """Bytes that can be read more than once, a piece at a time."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def chunks(self) -> Iterator[bytes]:
        """The bytes from the start."""


@dataclass(frozen=True)
class Bytes:
    """A source in memory."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield self.data


class Reader(Protocol):
    """Where images are read from: a registry, or a layout in a folder."""

    name: str
    """Host and port of the registry, or the folder; for messages, without credentials."""

    def manifest(self, repository: str, reference: str) -> tuple[bytes, str] | None:
        """Bytes and media type of the manifest with this tag or digest, None if there is none; a digest is checked.

        Raises RegistryUnavailable, RegistryDenied, RegistryRefused and DigestDiffers.
        """

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes of a blob, **unchecked** until the last one: that raises DigestDiffers. Raises ImageMissing."""


class Registry(Reader, Protocol):
    """An image registry, as the OCI distribution specification has it (v1.0)."""

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the blob is in ``repository``."""

    def mount(self, repository: str, digest: str, origin: str) -> bool:
        """Make the blob of the repository ``origin`` one of ``repository`` too, without sending it; False: upload."""

    def upload(self, repository: str, digest: str, source: Source) -> None:
        """Send a blob; raises DigestDiffers when what arrived is not what was named, and keeps nothing of it."""

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str:
        """Write a manifest under a tag or its digest; return the digest, which the registry has confirmed."""


def checked(pieces: Iterator[bytes], digest: str, where: str) -> Iterator[bytes]:
    """``pieces`` as they come; raises DigestDiffers after the last one unless they are those of ``digest``."""
    sum_ = hashlib.sha256()
    for piece in pieces:
        sum_.update(piece)
        yield piece
    if f"sha256:{sum_.hexdigest()}" != digest:
        raise DigestDiffers(
            f"{where} gave other bytes for {digest} (sha256:{sum_.hexdigest()}): nothing was kept of them"
        )
