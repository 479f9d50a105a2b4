"""Releases and base images made by hand: small, and of bytes that are nobody's model."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.clients.oci_types import CONFIG, LAYER, MANIFEST, Bytes
from edgeloop.release.oci.images import Artifact, Image
from edgeloop.release.oci.layout import write_layout
from edgeloop.release.oci.records import Arch, Descriptor, ImageConfig, Index, Manifest, RootFs
from edgeloop.release.oci.tars import layer_tar
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Layer, Release, Role, Variant

BACKBONE = bytes(range(256)) * 1200
ARCHES: tuple[Arch, ...] = ("amd64", "arm64")


@dataclass
class Blobs:
    """A store of blobs by digest that counts what is read."""

    held: dict[str, bytes] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)

    def read(self, name: str) -> bytes:
        self.reads.append(name)
        return self.held[name]

    def layers(self, contents: Mapping[Role, bytes]) -> list[Layer]:
        self.held |= {digest(data): data for data in contents.values()}
        return [Layer(role=r, digest=digest(d), size=len(d), media_type="x/y") for r, d in contents.items()]


def photo_release(blobs: Blobs, version: str = "1", head: bytes = b"head", variants: Sequence[Variant] = ()) -> Release:
    """An image model's release."""
    contents: dict[Role, bytes] = {"backbone": BACKBONE, "head": head, "config": b"{}", "probe": b"[]"}
    return _release(version, blobs.layers(contents), variants)


def row_release(blobs: Blobs, version: str = "1") -> Release:
    """A tabular model's release."""
    contents: dict[Role, bytes] = {"model": b"onnx", "config": b"{}", "probe": b"[]"}
    return _release(version, blobs.layers(contents), ())


def _release(version: str, layers: list[Layer], variants: Sequence[Variant]) -> Release:
    return Release(
        service="rater", version=version, run_id="run", dataset="sha256:d", layers=layers, variants=list(variants)
    )


def base_image(arch: Arch, marker: bytes = b"runtime") -> Image:
    """A runtime: one compressed layer, a user that is root, and its own way to start."""
    tar = layer_tar({"etc/runtime": marker + arch.encode()})
    layer = gzip.compress(tar, mtime=0)
    config = ImageConfig(
        architecture=arch,
        config={"Env": ["PATH=/opt/edgeloop/bin:/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/var"},
        rootfs=RootFs(diff_ids=[digest(tar)]),
    )
    descriptor = Descriptor(media_type=f"{LAYER}+gzip", digest=digest(layer), size=len(layer))
    data = config.to_bytes()
    manifest = Manifest(
        media_type=MANIFEST,
        config=Descriptor(media_type=CONFIG, digest=digest(data), size=len(data)),
        layers=[descriptor],
    )
    return Image(manifest, config, {descriptor.digest: Bytes(layer)})


def base_artifact(arches: Sequence[Arch] = ARCHES) -> Artifact:
    """An index over runtimes."""
    images = tuple(base_image(arch) for arch in arches)
    return Artifact(Index(manifests=[image.descriptor for image in images]), images)


def base_layout(folder: Path, arches: Sequence[Arch] = ARCHES) -> Artifact:
    """The runtimes in a layout."""
    made = base_artifact(arches)
    write_layout(folder, made, "base")
    return made
