"""Two signed releases of one image model to measure with: the same backbone, and heads that differ."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeloop.bench.edge_site import HOST, SERVICE
from edgeloop.clients import broker as brokers
from edgeloop.clients.models import LinearHead, load_model, make_probe, read_backbone
from edgeloop.clients.objects import DirectoryStore, ObjectStore
from edgeloop.fleet.channel import point_ring
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.signing import Keys
from edgeloop.samples.records import canonical, digest
from edgeloop.samples.releases import Layer, Release, Role, blob_key, release_key
from edgeloop.samples.service import ImageInput, NodeConfig

LABELS = ("cat", "dog", "other")
#: Side of the JPEG in pixels; with the noise in it about 30 KB.
SIDE = 320
_XCEPTION_SIDE = 96


@dataclass
class Releases:
    """Releases in a store on this disk, and the broker that nudges."""

    folder: Path
    store_folder: Path
    trust: Path
    backbone: Path
    head: Path
    store: ObjectStore
    publisher: Publisher
    broker_port: int
    made: list[Release]

    def point(self, number: int) -> str:
        """Let ring 0 run the release ``number``; its version."""
        release = self.made[number]
        broker = brokers.connect(f"mqtt://{HOST}:{self.broker_port}", "bench-cloud")
        try:
            point_ring(self.publisher, broker, SERVICE, 0, release.digest)
        finally:
            broker.close()
        return release.version


def make_releases(folder: Path, backbone: Path | None, broker_port: int) -> Releases:
    """Export or take the backbone, make two heads, release and approve both."""
    store_folder = folder / "store"
    store = DirectoryStore(store_folder)
    publisher = Publisher(store, Keys(folder / "keys"))
    trust = folder / "root.json"
    trust.write_bytes(publisher.ensure())
    file = backbone or export_xception(folder / "backbone.tflite")
    made = []
    for number in range(2):
        head = random_head(read_backbone(file).length, number)
        (folder / "head.npz").write_bytes(head)
        release = write_release(store, file.read_bytes(), head, str(number + 1))
        publisher.approve(SERVICE, release.digest)
        made.append(release)
    return Releases(folder, store_folder, trust, file, folder / "head.npz", store, publisher, broker_port, made)


def export_xception(path: Path) -> Path:
    """An Xception extractor of 96 pixels with random weights: it sees nothing and costs what a trained one costs."""
    if not path.exists():
        from edgeloop.exports.litert import export_litert
        from edgeloop.learning.xception import build_backbone

        export_litert(build_backbone(_XCEPTION_SIDE, None, 0), path)
    return path


def random_head(features: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    weights = rng.normal(scale=0.05, size=(features, len(LABELS))).astype(np.float32)
    return LinearHead(weights, np.zeros(len(LABELS), np.float32), LABELS).to_bytes()


def write_release(store: ObjectStore, backbone: bytes, head: bytes, version: str) -> Release:
    """Layers and manifest of one image model in ``store``."""
    config = NodeConfig(
        service=SERVICE, kind="image-classifier", image=ImageInput(size=_XCEPTION_SIDE), labels=list(LABELS)
    )
    contents: dict[Role, bytes] = {"backbone": backbone, "head": head}
    model = load_model(config, {"backbone": backbone, "head": head}, digest(backbone))
    contents["config"] = canonical(config.model_dump(mode="json"))
    contents["probe"] = make_probe(model, [jpeg_of(seed) for seed in (1, 2)])
    layers = [
        Layer(role=role, digest=digest(data), size=len(data), media_type="application/octet-stream")
        for role, data in contents.items()
    ]
    for data in contents.values():
        store.create(blob_key(digest(data)), data)
    release = Release(service=SERVICE, version=version, run_id="bench", dataset="none", layers=layers)
    store.create(release_key(SERVICE, release.digest), release.to_bytes())
    return release


def picture(path: Path) -> bytes:
    """Write the JPEG that is asked about."""
    data = jpeg_of(0)
    path.write_bytes(data)
    return data


def jpeg_of(seed: int) -> bytes:
    """A JPEG of gradients and noise: simulated, but as large as a camera's."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, SIDE)
    plain = np.stack([np.add.outer(ramp, ramp) / 2, np.add.outer(ramp, -ramp) / 2 + 100, np.full((SIDE, SIDE), 90)], 2)
    pixels = np.clip(plain + rng.normal(scale=14, size=plain.shape), 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=85)
    return sink.getvalue()
