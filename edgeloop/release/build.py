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
from edgeloop.clients.registry import ModelVersion
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.release.optimise.conversions import Conversions
from edgeloop.release.optimise.examples import examples
from edgeloop.release.optimise.measured import Measured
from edgeloop.release.optimise.plan import form_of
from edgeloop.release.optimise.variants import MEDIA, PROBES, Made, make_variants
from edgeloop.samples.dataset import dataset_members, example_payloads, load_dataset
from edgeloop.samples.inputs import drawn_inputs
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import canonical, digest
from edgeloop.samples.releases import Layer, Release, Role, Variant, blob_key, parse_release, release_key
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore

_DEPLOYED: tuple[Role, ...] = ("backbone", "head", "model")


class IncompleteVersion(EdgeloopError):
    """A model version lacks what a release is made of."""


class OtherProfiles(BadInput):
    """A release was asked for with other profiles than the service names."""


def find_release(
    store: ObjectStore, fleet: FleetStore, service: Service, version: ModelVersion, profiles: Sequence[Profile] = ()
) -> str | None:
    """Digest of the newest release of ``version``, if it has a variant for each of ``profiles`` and no other.

    Raises:
        OtherProfiles: ``profiles`` are not those of the service.
        MalformedRelease: its manifest is damaged.
    """
    _check_profiles(service, profiles)
    known = fleet.release_of(service.name, version.version)
    if known is None or store.size(key := release_key(service.name, known)) is None:
        return None
    if not profiles:
        return known
    made = [(v.profile, v.runtime, v.precision) for v in parse_release(store.get(key), known).variants]
    return known if made == [(p.name, *form_of(p, service)) for p in profiles] else None


def make_release(
    store: ObjectStore,
    tables: Tables,
    fleet: FleetStore,
    service: Service,
    version: ModelVersion,
    profiles: Sequence[Profile] = (),
) -> Release:
    """Package ``version`` with a variant for each profile, and record it; nothing is approved by that.

    Raises:
        OtherProfiles: ``profiles`` are not those of the service.
        UnknownDataset: the dataset version that it was trained on is lost.
        IncompleteVersion, UnloadableModel: see :func:`build_release`.
        OutOfTolerance, and what else :func:`~edgeloop.release.optimise.variants.make_variants` raises.
    """
    _check_profiles(service, profiles)
    release, made = _package(store, tables, fleet, service, version, profiles)
    _keep_figures(fleet, service, release, made)
    fleet.add_release(service.name, version.version, release.digest)
    return release


def make_draft(
    store: ObjectStore,
    tables: Tables,
    fleet: FleetStore,
    service: Service,
    version: ModelVersion,
    profiles: Sequence[Profile],
) -> Release:
    """Package ``version`` for any profiles, to try it: no record names it, so it is never taken for the release.

    Raises:
        As :func:`make_release`, but for OtherProfiles.
    """
    return _package(store, tables, fleet, service, version, profiles)[0]


def _package(
    store: ObjectStore,
    tables: Tables,
    fleet: FleetStore,
    service: Service,
    version: ModelVersion,
    profiles: Sequence[Profile],
) -> tuple[Release, list[Made]]:
    dataset = load_dataset(store, service.name, version.dataset)
    judged = fleet.entry(service.name, "gate", version.key)
    members = dataset_members(store, tables, dataset)
    made: list[Made] = []
    if profiles:
        inputs = examples(tables, service.name, members)
        kept = Conversions(fleet.database, store)
        made = make_variants(store, kept, service, version.layers, profiles, inputs)
    release = build_release(
        store,
        service,
        version,
        example_payloads(tables, service.name, dataset, PROBES, members) or drawn_inputs(service, PROBES),
        {"verdict": judged["verdict"], "reason": judged["reason"]} if judged else {},
        [one.variant for one in made],
    )
    return release, made


def _check_profiles(service: Service, profiles: Sequence[Profile]) -> None:
    """A release that lacks a variant would leave the nodes of a profile without any model."""
    given, named = [p.name for p in profiles], list(dict.fromkeys(service.delivery.profiles))
    if given != named:
        raise OtherProfiles(
            f"service {service.name} names the profiles {', '.join(named) or 'none'} in delivery.profiles, the release"
            f" was asked for with {', '.join(given) or 'none'}: give those of the service"
        )


def _keep_figures(fleet: FleetStore, service: Service, release: Release, made: Sequence[Made]) -> None:
    if made:
        measured = Measured(fleet.database)
        for one in made:
            measured.record(one.figures(service.name, release.digest))


def build_release(
    store: ObjectStore,
    service: Service,
    version: ModelVersion,
    probes: Sequence[bytes],
    evaluation: dict[str, Any],
    variants: Sequence[Variant] = (),
) -> Release:
    """Write the layers and the manifest of ``version`` to the store and return the manifest.

    Layers of ``variants`` are in the store already.

    Raises:
        IncompleteVersion: a layer is not in the store, or not with the bytes that the version names.
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
            media_type=media_type(data) if role == "head" else MEDIA[role],
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
        variants=list(variants),
    )
    store.create(release_key(service.name, release.digest), release.to_bytes())
    return release


def _fetch(store: ObjectStore, service: Service, version: ModelVersion, role: Role) -> bytes:
    name = version.layers[role]
    key = blob_key(name)
    data = store.get(key) if store.size(key) is not None else b""
    if digest(data) != name:  # many can write to the store, and what is packaged is signed
        raise IncompleteVersion(
            f"version {version.version} of {service.name} names {role} {name}, which is not in {store.url}, or has"
            f" other bytes there: restore {key}, or train and register anew"
        )
    return data
