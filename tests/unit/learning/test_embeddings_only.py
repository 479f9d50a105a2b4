"""No raw input leaves the node, and the service gets better all the same: on photos, with the real extractor."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from edgeloop.clients.models import Model, load_model, run_probe, small_input
from edgeloop.learning.evaluate import evaluate, predict
from edgeloop.learning.features import NO_INPUT, OTHER_BACKBONE, MissingFeatures, load_cache
from edgeloop.learning.pool import NothingToLearn, sample_rows
from edgeloop.learning.rounds import Promotion
from edgeloop.learning.train import Base, Candidate, train
from edgeloop.quality.ingest import Ingested
from edgeloop.quality.validate import Validated
from edgeloop.samples.dataset import freeze, members_of
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.service import Gate
from tests.unit.learning.photos import Photo, World, photos_of, watcher


@dataclass(frozen=True)
class Played:
    """What happened, once for all tests."""

    world: World
    bootstrap: list[Photo]
    captured: list[Photo]
    samples: list[Sample]
    first: Candidate
    before: Model
    collected: tuple[Ingested, Validated]
    second: Candidate
    promotion: Promotion
    layers: dict[str, bytes]
    after: Model


@pytest.fixture(scope="module")
def played(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """100 labelled photos of one source, then captures of another camera without their photos."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations.expectations  # noqa: F401
    world = World(tmp_path_factory.mktemp("world"), watcher(shared))
    data = shared / "datasets" / "cats-dogs"
    bootstrap = photos_of(data / "asirra", 50)
    captured = [p for number, p in enumerate(photos_of(data / "oxford")) if number % 3 != 2]
    world.reference(bootstrap)
    world.collect()
    first, _ = world.round()
    release, _, before = world.release()
    samples = world.capture(before, release, captured)
    collected = world.collect()
    second, promotion = world.round()
    _, layers, after = world.release()
    yield Played(world, bootstrap, captured, samples, first, before, collected, second, promotion, layers, after)
    world.fleet.close()


def test_samples_without_their_photo_are_accepted(played: Played) -> None:
    ingested, validated = played.collected
    count = len(played.captured)
    assert count > 600
    assert (ingested.samples, ingested.labels, ingested.unmatched) == (count, count, 0)
    assert (validated.accepted, validated.quarantined) == (count, 0)


def test_the_retrained_head_is_better_and_promoted(played: Played) -> None:
    assert played.promotion.promoted, played.promotion.reason
    assert played.second.left_out == {}
    pool = {m.sample_id for m in members(played.world) if m.split == "pool"}
    assert played.second.trained_on["new"] == len(pool & {s.sample_id for s in played.samples}) > 300
    assert played.second.layers["backbone"] == played.first.layers["backbone"]


def members(world: World) -> Any:
    return members_of(world.tables, "looker", freeze(world.store, world.tables, "looker").tables)


def test_on_photos_that_nobody_learned_from_it_is_better_too(played: Played, shared: Path) -> None:
    unseen = photos_of(shared / "datasets" / "cats-dogs" / "oxford")[2::3]
    assert not {p.payload for p in unseen} & {p.payload for p in played.captured}

    def right(model: Model) -> float:
        return float(np.mean([model.predict(p.payload).prediction == p.label for p in unseen]))

    before, after = right(played.before), right(played.after)
    assert after > before + 0.02, f"{before:.3f} -> {after:.3f} on {len(unseen)} photos"


def test_no_photo_of_a_capture_is_in_the_store(played: Played) -> None:
    allowed = {digest(p.payload) for p in played.bootstrap} | {digest(b"")}
    looked = 0
    for info in played.world.store.list(""):
        data = played.world.store.get(info.key)
        assert not any(p.payload[200:260] in data for p in played.captured), info.key
        if info.key.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            if "payload" in table.column_names:
                looked += 1
                assert {digest(p) for p in table.column("payload").to_pylist()} <= allowed, info.key
    assert looked >= 4, "the captures in the archive and the table"


def test_the_features_it_brought_are_kept_under_the_samples_own_names(played: Played) -> None:
    """Later rounds read them from there, and no row; a node's word on a photo's features is its own sample's only."""
    kept = set(load_cache(played.world.store, played.first.layers["backbone"]))
    computed = {digest(p.payload) for p in played.bootstrap}
    assert computed <= kept
    assert len(kept - computed) == len(played.samples)
    assert not kept & {digest(p.payload) for p in played.captured}


def test_the_release_checks_itself_with_photos_that_may_be_had(played: Played) -> None:
    import base64

    cases = json.loads(played.layers["probe"])["cases"]
    assert {base64.b64decode(c["payload"]) for c in cases} <= {small_input(p.payload) for p in played.bootstrap}
    assert len(cases) == 4
    config = played.world.service.node_config()
    run_probe(load_model(config, played.layers, played.first.layers["backbone"]), played.layers["probe"], True)


def test_a_features_answer_is_the_photos_answer(played: Played) -> None:
    """What the cloud judges by features alone is what the node would answer to the photo."""
    world = played.world
    some = played.samples[:40]
    rows = sample_rows(world.tables, [s.sample_id for s in some])
    answers = predict(world.store, world.service, played.second.layers, [rows[s.sample_id] for s in some])
    names = [(world.service.labels or [])[int(a)] for a in answers]
    assert names == [played.after.predict(p.payload).prediction for p in played.captured[:40]]


# --- another backbone


@pytest.fixture
def other(played: Played, shared: Path) -> str:
    """The same extractor under another name: its features are as good, and nobody can know that."""
    content = (shared / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite").read_bytes() + b"\0"
    played.world.store.create(blob_key(digest(content)), content)
    return digest(content)


def changed_base(played: Played, backbone: str) -> Base:
    champion = played.world.registry.champion("looker")
    assert champion is not None
    return Base(version="9", dataset=champion.dataset, layers=champion.layers | {"backbone": backbone})


def test_features_of_another_backbone_are_left_out_and_counted(played: Played, other: str) -> None:
    world = played.world
    dataset = freeze(world.store, world.tables, "looker")
    said: list[str] = []
    base = changed_base(played, other)
    trainer = world.service.trainer.model_copy(update={"backbone": "xception"})  # names no file: the champion's is used
    service = world.service.model_copy(update={"trainer": trainer})
    made = train(world.store, world.tables, service, dataset, base, "head", 0, said.append)
    bare = {s.sample_id for s in played.samples}
    lost = {split: len([m for m in members(world) if m.split == split and m.sample_id in bare]) for split in SPLITS}
    assert made.left_out == {OTHER_BACKBONE: lost["pool"]}
    assert sum(made.trained_on.values()) == dataset.counts["pool"] - lost["pool"]
    assert f"{lost['pool']} pool samples are left out: {OTHER_BACKBONE}" in said
    strict = world.service.model_copy(update={"gate": Gate(min_samples=60)})
    evaluation = evaluate(world.store, world.tables, strict, dataset, made)
    assert evaluation.left_out == {split: {OTHER_BACKBONE: count} for split, count in lost.items()}
    assert evaluation.decision.samples == dataset.counts["gate"] - lost["gate"] > 10
    assert evaluation.decision.verdict == "inconclusive"
    assert evaluation.decision.reason.endswith(f"(left out: {lost['gate']} with {OTHER_BACKBONE})")


SPLITS = ("pool", "gate", "test")


@pytest.mark.parametrize("newer", ["candidate", "champion"])
def test_models_of_two_backbones_are_judged_on_what_both_can_answer(played: Played, other: str, newer: str) -> None:
    world = played.world
    dataset = freeze(world.store, world.tables, "looker")
    same = played.first.layers["backbone"]
    champion = changed_base(played, other if newer == "champion" else same)
    layers = played.second.layers | {"backbone": other if newer == "candidate" else same}
    mixed = played.second.model_copy(update={"layers": layers, "base": champion})
    evaluation = evaluate(world.store, world.tables, world.service, dataset, mixed)
    bare = {s.sample_id for s in played.samples}
    both = [m for m in members(world) if m.split == "gate" and m.sample_id not in bare]
    assert evaluation.decision.samples == len(both)
    assert evaluation.test.candidate == evaluation.test.champion, "one model under two names"


def test_asking_for_answers_that_nobody_can_give_says_so(played: Played, other: str) -> None:
    world = played.world
    rows = list(sample_rows(world.tables, [s.sample_id for s in played.samples[:3]]).values())
    with pytest.raises(MissingFeatures, match=r"3 inputs, sha256:.* no features of backbone sha256:.*: leave them out"):
        predict(world.store, world.service, played.second.layers | {"backbone": other}, rows)


def test_full_training_leaves_out_what_it_cannot_see(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    world = played.world
    dataset = freeze(world.store, world.tables, "looker")
    seen: list[dict[str, Any]] = []

    def fake(store: Any, tables: Any, service: Any, rows: list[dict[str, Any]], *_: Any) -> dict[str, str]:
        seen.extend(rows)
        return {"backbone": played.first.layers["backbone"]}

    monkeypatch.setattr("edgeloop.learning.trainers.image.train_backbone", fake)
    made = train(world.store, world.tables, world.service, dataset, None, "full", 7)
    assert {digest(r["payload"]) for r in seen} <= {digest(p.payload) for p in played.bootstrap}
    assert len(seen) == made.trained_on["new"] > 0
    assert made.left_out == {NO_INPUT: dataset.counts["pool"] - len(seen)}


def test_full_training_without_a_single_photo_is_refused_in_plain_words(played: Played, tmp_path: Path) -> None:
    bare = World(tmp_path, played.world.service)
    bare.store.create(blob_key(played.first.layers["backbone"]), played.layers["backbone"])
    bare.send(played.samples[:60], [p.label for p in played.captured[:60]])
    bare.collect()
    dataset = freeze(bare.store, bare.tables, "looker")
    with pytest.raises(
        NothingToLearn, match=rf"\({dataset.counts['pool']} have {NO_INPUT}\): use mode head .* raw inputs"
    ):
        train(bare.store, bare.tables, bare.service, dataset, None, "full", 0)
    bare.fleet.close()


def test_with_no_photo_anywhere_a_service_is_trained_and_released(played: Played, tmp_path: Path) -> None:
    """Its bootstrap data is gone, say; probes and MLflow's example are made up then."""
    bare = World(tmp_path, played.world.service)
    bare.store.create(blob_key(played.first.layers["backbone"]), played.layers["backbone"])
    bare.send(played.samples[:300], [p.label for p in played.captured[:300]])
    bare.collect()
    candidate, promotion = bare.round()
    assert promotion.promoted, promotion.reason
    assert candidate.left_out == {}
    _, layers, model = bare.release()
    run_probe(model, layers["probe"], True)
    kept = load_cache(bare.store, played.first.layers["backbone"])
    assert not kept.keys() & {digest(p.payload) for p in played.captured}, "nothing was computed"
    bare.fleet.close()
