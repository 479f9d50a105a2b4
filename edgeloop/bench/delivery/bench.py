"""The measurement: releases made and delivered, the same as images, and deltas between those."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeloop.bench.delivery.deltas import bsdiff_delta, gzip_size, zstd_delta, zstd_size
from edgeloop.bench.delivery.image import Pulled, own_arch, pull, stand_in, unpacked
from edgeloop.bench.delivery.models import Line, make_line
from edgeloop.bench.delivery.result import Change, DeliveryBench, Sizes, Travelled
from edgeloop.bench.delivery.travel import Fleet, Site
from edgeloop.bench.edge_release import export_xception
from edgeloop.clients.models import UnknownBackbone, UnloadableModel, read_backbone
from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.fleet.approvals import APPROVED
from edgeloop.release.oci.base import Base
from edgeloop.release.oci.images import build_artifact
from edgeloop.release.oci.layout import Layout, write_layout
from edgeloop.release.oci.records import Arch, Descriptor
from edgeloop.samples.releases import Release, blob_key

Say = Callable[[str], None]


@dataclass(frozen=True)
class DeliveryOptions:
    """What to measure."""

    backbone: Path | None = None
    """LiteRT extractor; None exports an Xception of 96 pixels with random weights."""
    labels: int = 10
    fleet: Fleet = field(default_factory=Fleet)


def bench_delivery(home: Path, options: DeliveryOptions, base: Base | None, say: Say) -> DeliveryBench:
    """Measure in a new folder of ``home``, which is deleted at the end; an exported backbone stays.

    Raises:
        UnknownBackbone, NoWeights: the backbone is no LiteRT extractor, or cannot be changed.
        NothingServes: the node did not follow the channel.
        NoPlatform, UnknownArch, NoFiles: there is no base for this machine.
        RegistryUnavailable, ImageMissing: the base cannot be read.
    """
    began = time.monotonic()
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="run-", dir=home, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        file = options.backbone or export_xception(home / "xception.tflite")
        _check(file)
        backbone = file.read_bytes()
        store = MemoryStore()
        say("making releases")
        line = make_line(store, backbone, options.labels)
        moves = _moves(Site(store, folder, line, options.fleet), line, say)
        say("making images")
        arch = own_arch()
        images = Images(store, folder, base or stand_in(folder, arch), arch, say)
        first = images.change(None, line.first)
        head, full = images.change(line.first, line.head), images.change(line.head, line.full)
    return DeliveryBench(
        base=images.base.name,
        backbone_bytes=len(backbone),
        features=line.features,
        labels=options.labels,
        rings=options.fleet.rings,
        services=options.fleet.services,
        approvals=APPROVED,
        first=first(moves["first"]),
        head=head(moves["head"]),
        full=full(moves["full"]),
        look=moves["look"],
        elsewhere=moves["elsewhere"],
        batched=moves["batched"],
        fleet=moves["fleet"],
        seconds=round(time.monotonic() - began, 1),
    )


def _check(backbone: Path) -> None:
    try:
        read_backbone(backbone)
    except UnloadableModel as error:
        raise UnknownBackbone(f"{backbone} is no LiteRT extractor ({error}): name another file") from error


def _moves(site: Site, line: Line, say: Say) -> dict[str, Travelled]:
    """All that travels to the node, in the order of its life."""
    say("delivering to a node")
    return {
        "first": site.first(),
        "look": site.look(),
        "head": site.move(line.head),
        "full": site.move(line.full),
        "elsewhere": site.elsewhere(line.full, line.head),
        "batched": site.move_in_batches(line.full, line.batched),
        "fleet": site.move_all(line.last),
    }


@dataclass(frozen=True)
class _Image:
    layout: Layout
    digest: str
    pulled: Pulled
    own: tuple[Descriptor, ...]
    """Layers of the release, without those of the base."""


class Images:
    """The releases as images on one base."""

    def __init__(self, store: ObjectStore, folder: Path, base: Base, arch: Arch, say: Say) -> None:
        self.base = base
        self._store = store
        self._folder = folder
        self._arch = arch
        self._say = say
        self._sizes: dict[str, tuple[int, int, int]] = {}
        self._built: dict[str, _Image] = {}
        self._under: bytes | None = None

    def change(self, former: Release | None, to: Release) -> Callable[[Travelled], Change]:
        """What others send for the change, to be completed with what we do."""
        new = self._image(to)
        self._say(f"compressing the image of release {to.version}")
        sizes = self._size(new)
        if former is None:
            return lambda t: Change(travelled=t, image=sizes, pulled=new.pulled.bytes)
        old = self._image(former)
        pulled = pull(new.layout, "", new.digest, self._arch, held=set(old.pulled.blobs)).bytes
        self._say(f"deltas from release {former.version} to {to.version}")
        delta = len(zstd_delta(self._whole(old), self._whole(new)))
        pairs = self._changed(old, new)
        patches = [bsdiff_delta(before, after) for before, after in pairs]
        return lambda t: Change(
            travelled=t,
            image=sizes,
            pulled=pulled,
            image_zstd=delta,
            layers_zstd=sum(len(zstd_delta(before, after)) for before, after in pairs),
            layers_bsdiff=None if None in patches else sum(len(patch) for patch in patches if patch is not None),
        )

    def _image(self, release: Release) -> _Image:
        if release.digest not in self._built:
            bases = {self._arch: self.base}
            read = self._read_blob
            artifact = build_artifact(release, "predictor", [self._arch], bases, read)
            folder = self._folder / f"image-{release.version}"
            write_layout(folder, artifact, release.version)
            layout = Layout(folder)
            pulled = pull(layout, "", artifact.digest, self._arch)
            own = tuple(pulled.manifest.layers[len(self.base.layers) :])
            self._built[release.digest] = _Image(layout, artifact.digest, pulled, own)
        return self._built[release.digest]

    def _read_blob(self, name: str) -> bytes:
        return self._store.get(blob_key(name))

    def _size(self, image: _Image) -> Sizes:
        layers = image.pulled.manifest.layers
        records = image.pulled.bytes - sum(layer.size for layer in layers)
        found = [self._layer_sizes(image, layer) for layer in layers]
        gzip, zstd, unpacked_ = (records + sum(one[n] for one in found) for n in range(3))
        return Sizes(stored=image.pulled.bytes, gzip=gzip, zstd=zstd, unpacked=unpacked_)

    def _layer_sizes(self, image: _Image, layer: Descriptor) -> tuple[int, int, int]:
        """Of gzip, zstd and the tar; what a base has as gzip already stays that."""
        if layer.digest not in self._sizes:
            packed = layer.media_type.endswith("+gzip")
            gzip = layer.size if packed else gzip_size(unpacked(image.layout, "", layer))
            zstd = zstd_size(unpacked(image.layout, "", layer))
            size = sum(len(piece) for piece in unpacked(image.layout, "", layer))
            self._sizes[layer.digest] = (gzip, zstd, size)
        return self._sizes[layer.digest]

    def _whole(self, image: _Image) -> bytes:
        """All layers unpacked, one after the other."""
        if self._under is None:
            below = image.pulled.manifest.layers[: len(self.base.layers)]
            self._under = b"".join(piece for layer in below for piece in unpacked(image.layout, "", layer))
        return self._under + b"".join(self._tar(image, layer) for layer in image.own)

    def _tar(self, image: _Image, layer: Descriptor) -> bytes:
        return b"".join(unpacked(image.layout, "", layer))

    def _changed(self, old: _Image, new: _Image) -> list[tuple[bytes, bytes]]:
        """Former and present bytes of the model layers that are not the same."""
        pairs = zip(old.own, new.own, strict=True)
        return [(self._tar(old, a), self._tar(new, b)) for a, b in pairs if a.digest != b.digest]
