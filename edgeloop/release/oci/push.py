"""Bring an artifact to a registry under the digests that it has: what is there already is not sent.

Blobs first, then images, the index last: a name never stands for something that is not whole, and a push that was cut
off is finished by doing it again.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.clients.oci_reference import Reference
from edgeloop.clients.oci_types import INDEX, MANIFEST, Registry, Source
from edgeloop.release.oci.base import Kept
from edgeloop.release.oci.images import Artifact


@dataclass(frozen=True)
class Pushed:
    """What a push came to."""

    reference: str
    """By digest, for everything that runs images."""
    digest: str
    sent: int
    """Blobs that travelled,"""
    sent_bytes: int
    """their bytes,"""
    mounted: int
    """blobs that the registry had in another repository,"""
    skipped: int
    """and those that were there."""
    tagged: bool
    """Whether the tag was moved; False when it named this before."""


def push(registry: Registry, target: Reference, artifact: Artifact, tag: str) -> Pushed:
    """Make ``target`` have ``artifact``, and ``tag`` name it; a second time changes nothing.

    Raises:
        RegistryUnavailable, RegistryDenied, RegistryRefused, PlainHttp
        DigestDiffers: the registry has understood something else than was sent, or a base has other bytes than named.
    """
    where = target.repository
    mounted: list[str] = []
    sent: list[Source] = []
    for name, source in artifact.blobs.items():
        if registry.has_blob(where, name):
            continue
        if _mounted(registry, where, name, source):
            mounted.append(name)
            continue
        registry.upload(where, name, source)
        sent.append(source)
    for image in artifact.images:
        _write(registry, where, image.descriptor.digest, image.manifest.to_bytes(), MANIFEST)
    tagged = _write(registry, where, tag, artifact.index.to_bytes(), INDEX)
    return Pushed(
        reference=target.at(artifact.digest),
        digest=artifact.digest,
        sent=len(sent),
        sent_bytes=sum(source.size for source in sent),
        mounted=len(mounted),
        skipped=len(artifact.blobs) - len(sent) - len(mounted),
        tagged=tagged,
    )


def _mounted(registry: Registry, where: str, name: str, source: Source) -> bool:
    """A layer of a base in the same registry need not travel."""
    near = isinstance(source, Kept) and source.reader.name == registry.name and source.repository != where
    return near and isinstance(source, Kept) and registry.mount(where, name, source.repository)


def _write(registry: Registry, where: str, reference: str, data: bytes, media_type: str) -> bool:
    found = registry.manifest(where, reference)
    if found is not None and found[0] == data:
        return False
    registry.put_manifest(where, reference, data, media_type)
    return True
