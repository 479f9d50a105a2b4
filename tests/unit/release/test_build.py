"""A release is the same bytes whoever builds it and how often, and only of what is whole and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from edgeloop.clients.models import FailedProbe, LinearHead, UnloadableModel, load_model, read_backbone, run_probe
from edgeloop.clients.objects import MemoryStore, ObjectStore
from edgeloop.clients.registry import MemoryRegistry, ModelVersion
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.quality.validate import validate
from edgeloop.release.build import IncompleteVersion, build_release
from edgeloop.release.optimise.measured import Measured
from edgeloop.release.optimise.variants import PROBES
from edgeloop.samples.dataset import UnknownDataset, freeze
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, Sample, digest
from edgeloop.samples.releases import MalformedRelease, blob_key, parse_release, release_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import NodeConfig
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore
from tests.unit.release.champion import release_champion
from tests.unit.release.optimise.bars import profile
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import label, looker, picture, regressor, sample

EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
PAYLOADS = [encode_features([n, 1]) for n in range(3)]


@pytest.fixture(scope="module")
def onnx() -> bytes:
    rows = np.random.default_rng(0).uniform(0, 10, (40, 2)).astype(np.float32)
    return to_onnx(fit_pipeline(regressor(), rows, [str(float(a + b) / 2) for a, b in rows], 0), 2)


def blob(store: MemoryStore, data: bytes) -> str:
    store.create(blob_key(digest(data)), data)
    return digest(data)


def version_of(store: MemoryStore, layers: dict[str, bytes], number: str = "1", **changes: Any) -> ModelVersion:
    values: dict[str, Any] = {
        "service": "rater",
        "version": number,
        "run_id": f"run-{number}",
        "key": f"sha256:key-{number}",
        "dataset": "sha256:data",
        "layers": {role: blob(store, data) for role, data in layers.items()},
    }
    return ModelVersion.model_validate(values | changes)


def everything(store: MemoryStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list("")}


def test_building_twice_is_the_same_and_writes_nothing_new(onnx: bytes) -> None:
    store = MemoryStore()
    version = version_of(store, {"model": onnx})
    first = build_release(store, regressor(), version, PAYLOADS, {"verdict": "pass"})
    before = everything(store)
    again = build_release(store, regressor(), version, PAYLOADS, {"verdict": "pass"})
    assert again.digest == first.digest
    assert again.to_bytes() == first.to_bytes()
    assert everything(store) == before


def test_another_machine_builds_the_same_bytes(onnx: bytes) -> None:
    stores = [MemoryStore(), MemoryStore()]
    for store in stores:
        build_release(store, regressor(), version_of(store, {"model": onnx}), PAYLOADS, {})
    assert everything(stores[0]) == everything(stores[1])


def test_a_release_is_whole(onnx: bytes) -> None:
    store = MemoryStore()
    made = build_release(store, regressor(), version_of(store, {"model": onnx}), PAYLOADS, {"verdict": "pass"})
    assert parse_release(store.get(release_key("rater", made.digest)), made.digest) == made
    assert [layer.role for layer in made.layers] == ["model", "config", "probe"]
    data = {layer.role: store.get(blob_key(layer.digest)) for layer in made.layers}
    assert all(digest(data[x.role]) == x.digest and len(data[x.role]) == x.size for x in made.layers)
    config = NodeConfig.model_validate_json(data["config"])
    assert config == regressor().node_config()
    run_probe(load_model(config, {str(k): v for k, v in data.items()}), data["probe"], classifier=False)
    assert len(json.loads(data["probe"])["cases"]) == len(PAYLOADS)
    assert (made.version, made.run_id, made.dataset) == ("1", "run-1", "sha256:data")
    assert made.evaluation == {"verdict": "pass"}


def test_a_tampered_probe_is_noticed(onnx: bytes) -> None:
    store = MemoryStore()
    made = build_release(store, regressor(), version_of(store, {"model": onnx}), PAYLOADS, {})
    layer = made.layer("probe")
    assert layer is not None
    probe = json.loads(store.get(blob_key(layer.digest)))
    probe["cases"][0]["prediction"] = "123.0"
    with pytest.raises(FailedProbe, match=r"probe input 0 gave .*the release says 123.0"):
        run_probe(load_model(regressor().node_config(), {"model": onnx}), json.dumps(probe).encode(), classifier=False)


def test_another_service_description_is_another_release(onnx: bytes) -> None:
    store = MemoryStore()
    version = version_of(store, {"model": onnx})
    same = build_release(store, regressor(), version, PAYLOADS, {})
    other = build_release(store, regressor(selection={"audit": 0.5}), version, PAYLOADS, {})
    assert same.digest != other.digest
    assert same.layer("model") == other.layer("model")


def test_an_unchanged_backbone_is_the_same_blob(shared: Path) -> None:
    store = MemoryStore()
    path = shared / "models" / EXTRACTOR
    backbone = read_backbone(path)
    width = len(backbone.features(np.zeros((224, 224, 3), np.uint8)))

    def version(number: str) -> ModelVersion:
        weights = np.full((width, 2), int(number), np.float32)
        head = LinearHead(weights, np.zeros(2, np.float32), ("cat", "dog"))
        layers = {"backbone": path.read_bytes(), "head": head.to_bytes()}
        return version_of(store, layers, number, service="looker")

    first = build_release(store, looker(), version("1"), [picture(1)], {})
    before = set(everything(store))
    second = build_release(store, looker(), version("2"), [picture(1)], {})
    assert first.digest != second.digest
    assert first.layer("backbone") == second.layer("backbone")
    assert first.layer("head") != second.layer("head")
    new = sum(len(data) for key, data in everything(store).items() if key not in before)
    assert new < path.stat().st_size / 10


def test_bytes_that_were_swapped_in_the_store_are_not_released(onnx: bytes) -> None:
    """Many can write to the store: what is released, and signed then, is what the version names."""
    store = MemoryStore()
    version = version_of(store, {"model": onnx})
    rows = np.random.default_rng(1).uniform(0, 10, (40, 2)).astype(np.float32)
    other = to_onnx(fit_pipeline(regressor(), rows, [str(float(a * b)) for a, b in rows], 0), 2)
    store.put(blob_key(version.layers["model"]), other)
    before = everything(store)
    with pytest.raises(IncompleteVersion, match=f"version 1 of rater names model {version.layers['model']}"):
        build_release(store, regressor(), version, PAYLOADS, {})
    assert everything(store) == before


def test_a_blob_that_is_missing_is_named_and_nothing_is_published(onnx: bytes) -> None:
    store = MemoryStore()
    version = version_of(store, {"model": onnx})
    store.delete(blob_key(version.layers["model"]))
    with pytest.raises(IncompleteVersion, match=f"version 1 of rater names model {version.layers['model']}"):
        build_release(store, regressor(), version, PAYLOADS, {})
    assert everything(store) == {}


@pytest.mark.parametrize("layers", [{}, {"model": b"no model"}], ids=["no layer", "no model"])
def test_a_model_that_does_not_run_here_is_not_published(layers: dict[str, bytes]) -> None:
    store = MemoryStore()
    version = version_of(store, layers)
    before = everything(store)
    with pytest.raises(UnloadableModel):
        build_release(store, regressor(), version, PAYLOADS, {})
    assert everything(store) == before


def test_crash_at_every_point_leaves_no_manifest_without_its_layers(onnx: bytes) -> None:
    whole = MemoryStore()
    expected = build_release(whole, regressor(), version_of(whole, {"model": onnx}), PAYLOADS, {})

    def run(fuse: Fuse) -> None:
        store = MemoryStore()
        version = version_of(store, {"model": onnx})
        guarded = cast(ObjectStore, Guarded(store, fuse, "get", "create", "size"))
        try:
            build_release(guarded, regressor(), version, PAYLOADS, {})
        except Crash:
            published = store.size(release_key("rater", expected.digest)) is not None
            assert not published
            build_release(store, regressor(), version, PAYLOADS, {})
        assert everything(store) == everything(whole)

    assert crash_everywhere(run) == 6


# --- the champion


class World:
    """A registry with a champion, the dataset it was trained on, and the SQL state."""

    def __init__(self, folder: Path, onnx: bytes) -> None:
        self.store = MemoryStore()
        self.tables = Tables("rater", self.store.table)
        samples = [sample(n) for n in range(8)]
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        self.tables.merge("labels", [to_row(label(s, "5")) for s in samples], Label)
        validate(self.tables, regressor(), [])
        self.dataset = freeze(self.store, self.tables, "rater")
        self.registry = MemoryRegistry()
        self.registry.versions = [
            version_of(self.store, {"model": onnx}, number, dataset=self.dataset.id) for number in ("1", "2")
        ]
        self.fleet = FleetStore(f"sqlite:///{folder / 'fleet.db'}")

    def release(self, **parts: Any) -> tuple[str, str] | None:
        return release_champion(
            parts.get("store", self.store),
            parts.get("tables", self.tables),
            self.registry,
            parts.get("fleet", self.fleet),
            regressor(delivery={"profiles": [p.name for p in parts.get("profiles", [])]}),
            parts.get("profiles", []),
        )


def test_without_a_champion_nothing_is_released(tmp_path: Path, onnx: bytes) -> None:
    world = World(tmp_path, onnx)
    assert world.release() is None
    assert list(world.store.list("releases")) == []


def test_the_champion_is_released_once(tmp_path: Path, onnx: bytes) -> None:
    world = World(tmp_path, onnx)
    world.registry.set_champion("rater", "1")
    first = world.release()
    assert first is not None
    assert first[0] == "1"
    before = everything(world.store)
    assert world.release() == first
    assert everything(world.store) == before
    assert world.fleet.release_of("rater", "1") == first[1]


def test_probes_are_samples_of_the_dataset_and_the_verdict_is_kept(tmp_path: Path, onnx: bytes) -> None:
    world = World(tmp_path, onnx)
    world.fleet.record("rater", "gate", "sha256:key-1", verdict="pass", reason="better", who="gate")
    world.registry.set_champion("rater", "1")
    released = world.release()
    assert released is not None
    made = parse_release(world.store.get(release_key("rater", released[1])), released[1])
    assert made.evaluation == {"verdict": "pass", "reason": "better"}
    layer = made.layer("probe")
    assert layer is not None
    assert len(json.loads(world.store.get(blob_key(layer.digest)))["cases"]) == PROBES


def test_where_no_sample_came_with_its_input_probes_are_made_up(
    tmp_path: Path, onnx: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, onnx)
    monkeypatch.setattr("edgeloop.release.build.example_payloads", lambda *_: [])
    world.registry.set_champion("rater", "1")
    released = world.release()
    assert released is not None
    made = parse_release(world.store.get(release_key("rater", released[1])), released[1])
    layer = made.layer("probe")
    assert layer is not None
    probe = world.store.get(blob_key(layer.digest))
    assert len(json.loads(probe)["cases"]) == PROBES
    run_probe(load_model(regressor().node_config(), {"model": onnx}), probe, classifier=False)


def test_every_move_of_the_alias_is_followed_and_a_known_release_reused(tmp_path: Path, onnx: bytes) -> None:
    world = World(tmp_path, onnx)
    seen = []
    for number in ("1", "2", "1"):
        world.registry.set_champion("rater", number)
        seen.append(world.release())
    assert seen[0] == seen[2]
    assert seen[0] != seen[1]


def test_samples_that_came_later_do_not_change_a_release(tmp_path: Path, onnx: bytes) -> None:
    """Two who release the same champion at different times make the same bytes."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    early, late = World(tmp_path / "a", onnx), World(tmp_path / "b", onnx)
    late.tables.merge("samples", [to_row(sample(n)) for n in range(20, 40)], Sample)
    late.tables.merge("labels", [to_row(label(sample(n), "5")) for n in range(20, 40)], Label)
    validate(late.tables, regressor(), [])
    for world in (early, late):
        world.registry.set_champion("rater", "1")
    assert early.release() == late.release()


def test_a_champion_of_a_lost_dataset_is_named(tmp_path: Path, onnx: bytes) -> None:
    world = World(tmp_path, onnx)
    world.registry.versions[0] = world.registry.versions[0].model_copy(update={"dataset": "sha256:lost"})
    world.registry.set_champion("rater", "1")
    with pytest.raises(UnknownDataset, match="dataset version sha256:lost of rater is not at"):
        world.release()


def test_crash_at_every_point_of_releasing_the_champion(tmp_path: Path, onnx: bytes) -> None:
    def run(fuse: Fuse) -> None:
        folder = tmp_path / str(fuse.left)
        folder.mkdir()
        world = World(folder, onnx)
        world.registry.set_champion("rater", "1")
        parts = {
            "store": Guarded(world.store, fuse, "get", "create", "size"),
            "tables": Guarded(world.tables, fuse, "read"),
            "fleet": Guarded(world.fleet, fuse, "release_of", "entry", "add_release"),
        }
        try:
            world.release(**parts)
        except Crash:
            world.release()
        results.add((world.release(), tuple(sorted(everything(world.store)))))
        world.fleet.close()

    results: set[Any] = set()
    assert crash_everywhere(run) > 10
    assert len(results) == 1


PROFILES = [profile("pi"), profile("server", arch="amd64")]


def test_a_table_model_has_one_form_for_all_profiles_and_each_its_own_probe(tmp_path: Path, onnx: bytes) -> None:
    world = World(tmp_path, onnx)
    world.registry.set_champion("rater", "1")
    plain, released = world.release(), world.release(profiles=PROFILES)
    assert plain is not None
    assert released is not None
    assert released != plain
    made = parse_release(world.store.get(release_key("rater", released[1])), released[1])
    assert [(v.profile, v.runtime, v.precision, v.agreement) for v in made.variants] == [
        ("pi", "onnx", "float32", 1.0),
        ("server", "onnx", "float32", 1.0),
    ]
    for variant in made.variants:
        assert made.layers_for(variant.profile) == variant.layers
        assert variant.layers[:2] == made.layers[:2]
        probe = world.store.get(blob_key(variant.layers[2].digest))
        assert len(json.loads(probe)["cases"]) == PROBES
        run_probe(load_model(regressor().node_config(), {"model": onnx}), probe, classifier=False)
    kept = Measured(world.fleet.database).of_release(released[1])
    assert [(f.profile, f.service, f.runtime) for f in kept] == [("pi", "rater", "onnx"), ("server", "rater", "onnx")]
    assert all(f.p50_ms and f.p50_ms > 0 for f in kept)
    assert world.release(profiles=PROFILES) == released
    assert world.release(profiles=PROFILES[:1]) != released


def test_releases_from_before_there_were_profiles_keep_their_names(tmp_path: Path, onnx: bytes) -> None:
    """A release that is in a fleet is asked for again by its digest, and its manifest has no word of variants."""
    world = World(tmp_path, onnx)
    world.registry.set_champion("rater", "1")
    released = world.release()
    assert released is not None
    data = world.store.get(release_key("rater", released[1]))
    assert b"variants" not in data
    assert parse_release(data, released[1]).to_bytes() == data
    assert parse_release(data, released[1]).layers_for("pi") == parse_release(data, released[1]).layers


@pytest.mark.parametrize("variants", [True, False])
def test_a_manifest_that_is_lost_is_made_again(tmp_path: Path, onnx: bytes, variants: bool) -> None:
    profiles = PROFILES if variants else []
    world = World(tmp_path, onnx)
    world.registry.set_champion("rater", "1")
    released = world.release(profiles=profiles)
    assert released is not None
    world.store.delete(release_key("rater", released[1]))
    assert world.release(profiles=profiles) == released
    assert world.store.size(release_key("rater", released[1]))


def test_crash_at_every_point_of_releasing_with_variants(tmp_path: Path, onnx: bytes) -> None:
    world = World(tmp_path, onnx)
    world.registry.set_champion("rater", "1")
    fresh = everything(world.store)
    results: set[Any] = set()

    def run(fuse: Fuse) -> None:
        for key in everything(world.store).keys() - fresh.keys():
            world.store.delete(key)
        fleet = FleetStore(f"sqlite:///{tmp_path / f'{fuse.left}.db'}")
        parts = {
            "store": Guarded(world.store, fuse, "get", "create", "size"),
            "fleet": Guarded(fleet, fuse, "release_of", "entry", "add_release"),
        }
        try:
            world.release(**parts, profiles=PROFILES)
        except Crash:
            world.release(fleet=fleet, profiles=PROFILES)
        released = world.release(fleet=fleet, profiles=PROFILES)
        assert released is not None
        figures = [f.profile for f in Measured(fleet.database).of_release(released[1])]
        results.add((released, tuple(figures), tuple(sorted(everything(world.store)))))
        fleet.close()

    assert crash_everywhere(run) > 10
    assert len(results) == 1


def test_a_manifest_that_was_swapped_is_refused(onnx: bytes) -> None:
    store = MemoryStore()
    version = version_of(store, {"model": onnx})
    one = build_release(store, regressor(), version, PAYLOADS, {})
    two = build_release(store, regressor(), version, PAYLOADS[:1], {})
    with pytest.raises(MalformedRelease):
        parse_release(store.get(release_key("rater", two.digest)), one.digest)
