"""A release as an image: its files in layers under ``/models``, one image for each kind of CPU, one index over them.

``model`` and ``savedmodel`` hold files alone, to be mounted beside a server; ``predictor`` stands on a runtime and
answers by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edgeloop.clients.oci_types import Bytes, Source
from edgeloop.errors import BadInput
from edgeloop.release.oci.base import Base
from edgeloop.release.oci.contents import Kind, ModelLayers
from edgeloop.release.oci.records import (
    NO_TIME,
    Arch,
    Descriptor,
    History,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    RootFs,
    describe,
)
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Release

#: Whoever nobody is on the machine; by number, since only then a cluster sees that it is not root.
USER = "10001:10001"
PORT = 8080
_TITLE = "org.opencontainers.image"


class NoBase(BadInput):
    """An image that should answer by itself has nothing to run on."""


@dataclass(frozen=True)
class Image:
    """One image, and all that it is made of by digest."""

    manifest: Manifest
    config: ImageConfig
    layers: Mapping[str, Source] = field(repr=False)

    @cached_property
    def descriptor(self) -> Descriptor:
        """How the index names it."""
        return describe(self.manifest, Platform(architecture=self.config.architecture, os=self.config.os))

    @cached_property
    def blobs(self) -> dict[str, Source]:
        """Layers from the lowest up, then the configuration."""
        return {**self.layers, self.manifest.config.digest: Bytes(self.config.to_bytes())}


@dataclass(frozen=True)
class Artifact:
    """An index and its images: what a registry or layout is given."""

    index: Index
    images: tuple[Image, ...]

    @property
    def digest(self) -> str:
        """Of the index, by which the whole is named."""
        return digest(self.index.to_bytes())

    @cached_property
    def blobs(self) -> dict[str, Source]:
        """Of all images; one that several have is there once."""
        return {name: source for image in self.images for name, source in image.blobs.items()}


def build_artifact(
    release: Release, kind: Kind, arches: Sequence[Arch], bases: Mapping[Arch, Base], read_blob: Callable[[str], bytes]
) -> Artifact:
    """The images of ``release`` for ``arches`` and their index; the same input gives the same digests.

    Raises:
        NoBase: a predictor without a base.
        DamagedBlob, NoSavedModel
    """
    layers = ModelLayers(release, read_blob)
    images = tuple(build_image(release, kind, arch, bases.get(arch), layers) for arch in arches)
    notes = _annotations(release, kind, next(iter(bases.values()), None))
    return Artifact(Index(manifests=[image.descriptor for image in images], annotations=notes), images)


def build_image(release: Release, kind: Kind, arch: Arch, base: Base | None, layers: ModelLayers) -> Image:
    """The image of ``release`` for one kind of CPU, on ``base`` if there is one."""
    if kind == "predictor" and base is None:
        raise NoBase(f"a predictor of {release.service} needs a runtime to run on: give --base IMAGE@sha256:…")
    own = layers.of(kind, arch)
    under = base.layers if base else ()
    notes = _annotations(release, kind, base)
    config = ImageConfig(
        architecture=arch,
        created=NO_TIME,
        config=_run_config(kind, dict(base.config.config) if base else {}, notes),
        rootfs=RootFs(diff_ids=[*(base.config.rootfs.diff_ids if base else ()), *(d.digest for d, _ in own)]),
        history=_history(base, [d for d, _ in own]),
    )
    manifest = Manifest(config=describe(config), layers=[*under, *(d for d, _ in own)], annotations=notes)
    sources = {**(base.sources if base else {}), **{d.digest: source for d, source in own}}
    return Image(manifest, config, sources)


def _annotations(release: Release, kind: Kind, base: Base | None) -> dict[str, str]:
    notes = {
        f"{_TITLE}.title": release.service,
        f"{_TITLE}.version": release.version,
        "edgeloop.kind": kind,
        "edgeloop.release": release.digest,
    }
    return notes if base is None else {**notes, f"{_TITLE}.base.name": base.name, f"{_TITLE}.base.digest": base.digest}


def _run_config(kind: Kind, config: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    config["Labels"] = {**(config.get("Labels") or {}), **labels}
    if kind != "predictor":
        return config
    config.pop("Healthcheck", None)
    user = str(config.get("User") or "")
    is_nobody = user.partition(":")[0].isdigit() and int(user.partition(":")[0]) > 0
    return {
        **config,
        "Entrypoint": ["edgeloop", "serve", "/models"],
        # Loopback of a container reaches nobody; who may reach it is for the cluster to say, or for an access.yaml.
        "Cmd": ["--http", f"0.0.0.0:{PORT}", "--open"],
        "ExposedPorts": {f"{PORT}/tcp": {}},
        "User": user if is_nobody else USER,
    }


def _history(base: Base | None, own: Sequence[Descriptor]) -> list[History] | None:
    """One line for each layer. A base without any leaves no way to say which line is whose: then none is written."""
    before = base.config.history if base else []
    if base and not before:
        return None
    names = [(d.annotations or {}).get(f"{_TITLE}.title", "") for d in own]
    return [*(before or []), *(History(created=NO_TIME, created_by=f"edgeloop: {name}") for name in names)]
