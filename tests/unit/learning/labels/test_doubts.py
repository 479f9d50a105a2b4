"""Whose doubts a queue goes by: the champion's before a fresh fit's, on features that are computed where none came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.models import LinearHead
from edgeloop.learning.features import load_cache
from edgeloop.learning.labels import vectors as module
from edgeloop.learning.labels.doubts import (
    champion_probabilities,
    doubts_of,
    ensemble_spread,
    fresh_probabilities,
)
from edgeloop.learning.labels.vectors import Vectors, vectors_of
from edgeloop.learning.labels.waiting import build_queue
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.learning.train import put_blob
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.splits import split_of
from tests.unit.learning.labels.world import World
from tests.unit.samples.make import classifier, label, looker, picture, regressor, sample

EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"


def pool(count: int, service: str, start: int = 0) -> list[int]:
    return [n for n in range(start, 10_000) if split_of(f"group-{n}", service) == "pool"][:count]


def test_margin_and_entropy_are_greatest_where_nothing_is_known() -> None:
    rows = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.25, 0.25]])
    assert doubts_of(rows, "margin").tolist() == pytest.approx([0.0, 1.0, 1.0, 0.75])
    entropy = doubts_of(rows, "entropy")
    assert entropy.tolist() == pytest.approx([0.0, np.log(2) / np.log(3), 1.0, 1.5 * np.log(2) / np.log(3)])
    assert entropy[3] > entropy[1], "the two measures rank them otherwise"


def test_a_fresh_fit_doubts_what_is_between_the_classes() -> None:
    known = np.array([[0, 0], [0.1, 0], [10, 0], [10.1, 0]], np.float32)
    sure = fresh_probabilities(known, ["x", "x", "y", "y"], np.array([[0, 0], [5, 0], [10, 0]], np.float32), 0)
    assert sure is not None
    assert doubts_of(sure, "margin").argmax() == 1
    assert fresh_probabilities(known, ["x"] * 4, known, 0) is None


def test_a_regressor_doubts_what_is_far_from_what_it_knows() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(size=(60, 2)).astype(np.float32)
    told = [str(float(a + rng.normal(0, 0.5))) for a, _ in known]
    at = np.array([[0, 0], [1, 0], [30, 30]], np.float32)
    spread = ensemble_spread(regressor(), known, told, at, 0)
    again = ensemble_spread(regressor(), known, told, at, 0)
    assert spread is not None and again is not None
    assert spread.tolist() == again.tolist()
    assert spread.argmax() == 2 and spread[2] > 5 * spread[0]
    assert ensemble_spread(regressor(), known[:0], [], at, 0) is None


def sorter(world: World, ends: float) -> dict[str, str]:
    """A champion of rows whose answer changes between x and y where the first feature is ``ends``."""
    rows = np.array([[ends - 1, 1], [ends + 1, 1]] * 10, np.float32)
    fitted = fit_pipeline(world.service, rows, ["x", "y"] * 10, 0)
    return {"model": put_blob(world.store, to_onnx(fitted, 2))}


def line(numbers: list[int]) -> list[Sample]:
    """Rows whose first feature runs from 0 to 20."""
    places = np.linspace(0, 20, len(numbers))
    return [
        sample(n, "sorter", encode_features([float(a), 1]), prediction="x")
        for n, a in zip(numbers, places, strict=True)
    ]


def places_asked(world: World, champion: dict[str, str] | None) -> list[float]:
    rows = {s.sample_id: s for s in line(pool(80, "sorter", start=1000))}
    queue = build_queue(world.store, world.tables, world.service, "ann", 4, 0, champion=champion)
    names = [one.sample_id for one in queue if one.asked.why == "uncertain"]
    assert names
    return [20 * list(rows).index(name) / 79 for name in names]


def test_the_champions_doubts_go_before_those_of_a_fresh_fit() -> None:
    world = World(classifier(labelling={"few_per_class": 5}))
    known = line(pool(40, "sorter"))
    world.add([*known, *line(pool(80, "sorter", start=1000))])
    world.label(*(label(s, "xy"[i >= 20], seconds=i) for i, s in enumerate(known)))
    fresh, asked = places_asked(world, None), places_asked(world, sorter(world, 17.0))
    assert abs(np.mean(fresh) - 10) < 4, "what is labelled changes at 10"
    assert abs(np.mean(asked) - 17) < 4, "the champion's answer changes at 17"
    assert places_asked(world, {"model": digest(b"gone")}) == fresh, "a champion that is gone is not asked"


def test_which_doubt_and_when_to_change_is_the_services() -> None:
    numbers = pool(40, "sorter")
    for few, why in ((50, "typical"), (2, "uncertain")):
        world = World(classifier(labelling={"few_per_class": few, "doubt": "entropy"}))
        known = line(numbers)
        world.add([*known, *line(pool(40, "sorter", start=1000))])
        world.label(*(label(s, "xyz"[i % 3], seconds=i) for i, s in enumerate(known)))
        whys = {one.asked.why for one in build_queue(world.store, world.tables, world.service, "ann", 10, 0)}
        assert whys == {"random", why}


def test_numbers_are_asked_where_the_pipeline_is_unsure() -> None:
    world = World(regressor(labelling={"few_per_class": 1}))
    numbers = pool(60, "rater")
    near = [sample(n, payload=encode_features([n % 10, 1.0])) for n in numbers[:55]]
    far = [sample(n, payload=encode_features([5, 1000.0 + n])) for n in numbers[55:]]
    world.add([*near, *far])
    world.label(*(label(s, str(i % 7), seconds=i) for i, s in enumerate(near[:30])))
    queue = build_queue(world.store, world.tables, world.service, "ann", 6, 0)
    asked = {one.sample_id for one in queue if one.asked.why == "uncertain"}
    assert asked & {s.sample_id for s in far}, "far from all that is known, where the pipeline never saw a difference"
    assert asked - {s.sample_id for s in far}, "and where its answers spread"


def test_features_of_another_backbone_are_not_given_to_a_head() -> None:
    world = World(looker())
    head = LinearHead(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), ("cat", "dog"))
    layers = {"backbone": digest(b"one"), "head": put_blob(world.store, head.to_bytes())}
    raw = {"a": np.array([3, 0], np.float32)}
    own = champion_probabilities(world.store, world.service, layers, Vectors(raw, digest(b"one")), ["a"])
    assert own is not None and own[0, 0] > 0.9
    assert champion_probabilities(world.store, world.service, layers, Vectors(raw, digest(b"two")), ["a"]) is None


def test_images_without_embeddings_get_features_and_keep_them(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COMPUTED", 5)
    world = World(looker(trainer={"backbone": str(shared / "models" / EXTRACTOR)}))
    rows = [sample(n, "looker", picture(n), prediction="cat") for n in pool(8, "looker")]
    world.add(rows)
    said: list[str] = []
    names = [s.sample_id for s in rows]
    first = vectors_of(world.store, world.tables, world.service, names, say=said.append)
    assert (len(first.raw), said) == (5, ["computing the features of 5 images"])
    assert first.backbone is not None
    assert len(load_cache(world.store, first.backbone)) == 5
    queue = build_queue(world.store, world.tables, world.service, "ann", 4, 0)
    assert {one.asked.why for one in queue} == {"random", "typical"}, "it goes on where the first one stopped"
    assert len(load_cache(world.store, first.backbone)) == 8
    comparable: dict[str, Any] = first.comparable()
    assert all(np.linalg.norm(v) == pytest.approx(1) for v in comparable.values())
