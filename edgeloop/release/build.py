"""Package a model version: layers as blobs under their digests, and a manifest whose digest is the release's name.

Everything is deterministic: the same version makes the same bytes, so building twice writes nothing new, and an
unchanged backbone is the same blob in every release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.clients.model_heads import media_type
from edgeloop.clients.models import load_model, make_probe
from edgeloop.clients.objects import ObjectStore
from edgeloop.clients.registry import ModelRegistry, ModelVersion
from edgeloop.errors import EdgeloopError
from edgeloop.samples.dataset import dataset_members, example_payloads, load_dataset
from edgeloop.samples.inputs import drawn_inputs
from edgeloop.samples.records import canonical, digest
from edgeloop.samples.releases import Layer, Release, Role, blob_key, release_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore

_MEDIA: dict[Role, str] = {
    "backbone": "application/vnd.edgeloop.litert",
    "model": "application/vnd.edgeloop.onnx",
    "config": "application/vnd.edgeloop.node-config+json",
    "probe": "application/vnd.edgeloop.probe+json",
}
#: Inputs with known answers that travel with a release, for a node to check a freshly loaded model with.
PROBES = 4
_DEPLOYED: tuple[Role, ...] = ("backbone", "head", "model")


class IncompleteVersion(EdgeloopError):
    """A model version lacks what a release is made of."""


def release_champion(
    store: ObjectStore, tables: Tables, registry: ModelRegistry, fleet: FleetStore, service: Service
) -> tuple[str, str] | None:
    """Make sure that the champion is released; return its version and the release's digest, None without a champion.

    Whoever moved the alias, a gate or a hand, this is what makes it a release. Idempotent.
    """
    version = registry.champion(service.name)
    if version is None:
        return None
    known = fleet.release_of(service.name, version.version)
    if known:
        return version.version, known
    dataset = load_dataset(store, service.name, version.dataset)
    judged = fleet.entry(service.name, "gate", version.key)
    members = dataset_members(store, tables, dataset)
    release = build_release(
        store,
        service,
        version,
        example_payloads(tables, service.name, dataset, PROBES, members) or drawn_inputs(service, PROBES),
        {"verdict": judged["verdict"], "reason": judged["reason"]} if judged else {},
    )
    fleet.add_release(service.name, version.version, release.digest)
    return version.version, release.digest


def build_release(
    store: ObjectStore, service: Service, version: ModelVersion, probes: Sequence[bytes], evaluation: dict[str, Any]
) -> Release:
    """Write the layers and the manifest of ``version`` to the store and return the manifest.

    Raises:
        IncompleteVersion: a layer is neither named by the version nor in the store.
        UnloadableModel: the packaged model does not run here; nothing names it yet.
    """
    contents = {role: _fetch(store, service, version, role) for role in _DEPLOYED if role in version.layers}
    config = service.node_config()
    model = load_model(config, {str(r): data for r, data in contents.items()}, version.layers.get("backbone"))
    contents["config"] = canonical(config.model_dump(mode="json"))
    contents["probe"] = make_probe(model, probes)
    layers = [
        Layer(
            role=role,
            digest=digest(data),
            size=len(data),
            media_type=media_type(data) if role == "head" else _MEDIA[role],
        )
        for role, data in contents.items()
    ]
    for layer in layers:
        store.create(blob_key(layer.digest), contents[layer.role])
    release = Release(
        service=service.name,
        version=version.version,
        run_id=version.run_id,
        dataset=version.dataset,
        layers=layers,
        evaluation=evaluation,
    )
    store.create(release_key(service.name, release.digest), release.to_bytes())
    return release


def _fetch(store: ObjectStore, service: Service, version: ModelVersion, role: Role) -> bytes:
    key = blob_key(version.layers[role])
    if store.size(key) is None:
        raise IncompleteVersion(
            f"version {version.version} of {service.name} names {role} {version.layers[role]}, which is not in"
            f" {store.url}: register the version again"
        )
    return store.get(key)
