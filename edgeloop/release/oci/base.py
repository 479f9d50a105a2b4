"""The image that another one stands on: always named by digest, so that nobody can change what a release runs on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from edgeloop.clients.oci_types import INDEXES, LARGEST_MANIFEST, LAYER, ImageMissing, Reader, Source
from edgeloop.errors import BadInput
from edgeloop.release.oci.records import (
    Arch,
    Descriptor,
    ImageConfig,
    MalformedImage,
    Manifest,
    Platform,
    read_config,
    read_index,
    read_manifest,
)

#: The same bytes under Docker's names; a manifest of OCI names them as OCI does.
_DOCKER_LAYERS = {
    "application/vnd.docker.image.rootfs.diff.tar": LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{LAYER}+zstd",
}


class NoPlatform(BadInput):
    """A base image is not made for a kind of CPU."""


@dataclass(frozen=True)
class Kept:
    """A blob that lies in a registry or layout: a source that a registry may have already, elsewhere."""

    reader: Reader
    repository: str
    digest: str
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The bytes, checked by the end."""
        return self.reader.blob(self.repository, self.digest)


@dataclass(frozen=True)
class Base:
    """An image for one kind of CPU, to be built upon."""

    name: str
    """Where it was read from, without its digest."""
    digest: str
    """That it was asked for by: of the index, or of the image itself."""
    config: ImageConfig
    layers: tuple[Descriptor, ...]
    sources: Mapping[str, Source] = field(repr=False)


def read_base(reader: Reader, repository: str, digest: str, arch: Arch) -> Base:
    """The image ``digest``, or the one for ``arch`` in the index ``digest``. Layers are not read yet.

    Raises:
        ImageMissing: there is no such image.
        NoPlatform: it is there, but not for ``arch``.
        MalformedImage: its records do not parse or contradict each other.
        RegistryUnavailable, RegistryDenied, RegistryRefused, DigestDiffers
    """
    name = f"{reader.name}/{repository}" if repository else reader.name
    manifest = _manifest(reader, repository, digest, arch, name)
    if manifest.config.size > LARGEST_MANIFEST:
        raise MalformedImage(f"configuration of base {name}@{digest} has {manifest.config.size} bytes: is it an image?")
    config = read_config(b"".join(reader.blob(repository, manifest.config.digest)), f"configuration of base {name}")
    if (config.architecture, config.os) != (arch, "linux"):
        raise _no_platform(name, digest, arch, [f"{config.os}/{config.architecture}"])
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        counts = f"{len(manifest.layers)} layers and digests of {len(config.rootfs.diff_ids)}"
        raise MalformedImage(f"base {name}@{digest} has {counts}: is it an image?")
    layers = tuple(_as_oci(layer) for layer in manifest.layers)
    sources = {layer.digest: Kept(reader, repository, layer.digest, layer.size) for layer in layers}
    return Base(name, digest, config, layers, sources)


def _manifest(reader: Reader, repository: str, digest: str, arch: Arch, name: str) -> Manifest:
    data, media_type = _fetch(reader, repository, digest, name)
    if media_type not in INDEXES:
        return read_manifest(data, f"base {name}@{digest}")
    images = read_index(data, f"base {name}@{digest}").manifests
    for one in images:
        if one.platform and (one.platform.architecture, one.platform.os) == (arch, "linux"):
            return read_manifest(_fetch(reader, repository, one.digest, name)[0], f"base {name}@{one.digest}")
    raise _no_platform(name, digest, arch, [_text(one.platform) for one in images if one.platform])


def _fetch(reader: Reader, repository: str, digest: str, name: str) -> tuple[bytes, str]:
    found = reader.manifest(repository, digest)
    if found is None:
        raise ImageMissing(f"{name} has no image {digest}: compare the digest with what  skopeo inspect  shows")
    return found


def _as_oci(layer: Descriptor) -> Descriptor:
    return layer.model_copy(update={"media_type": _DOCKER_LAYERS.get(layer.media_type, layer.media_type)})


def _text(platform: Platform) -> str:
    return f"{platform.os}/{platform.architecture}"


def _no_platform(name: str, digest: str, arch: str, has: list[str]) -> NoPlatform:
    return NoPlatform(
        f"base {name}@{digest} is not for linux/{arch}, only for {', '.join(has) or 'nothing named'}:"
        " name another base, or the kinds of CPU that you need with --arch"
    )
