"""Heads of every kind go the whole way: from a dataset version to a candidate, the gate, a release and a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.model_heads import HIDDEN, projection
from edgeloop.clients.models import (
    Backbone,
    HiddenHead,
    LinearHead,
    UnloadableModel,
    load_model,
    read_backbone,
    read_head,
)
from edgeloop.clients.objects import MemoryStore
from edgeloop.clients.registry import ModelVersion
from edgeloop.edge.runtime import Loaded, Runtime
from edgeloop.learning.evaluate import evaluate
from edgeloop.learning.train import Base, Candidate, train
from edgeloop.release.build import build_release
from edgeloop.samples.dataset import freeze
from edgeloop.samples.records import Label, Sample, Verdict, digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from tests.unit.samples.make import START, label, looker, picture, withheld

EXTRACTOR = "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
KINDS = ["linear", "ncm", "slda", "ranpac", "mlp"]
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def backbone(shared: Path) -> Backbone:
    return read_backbone(shared / "models" / EXTRACTOR)


class Field:
    """An image service whose samples came as features; each label is a cloud of its own."""

    def __init__(self, shared: Path, backbone: Backbone, **trainer: Any) -> None:
        path = shared / "models" / EXTRACTOR
        self.backbone = backbone
        self.trainer = {"backbone": str(path), **trainer}
        self.store = MemoryStore()
        self.store.create(blob_key(backbone.digest), path.read_bytes())
        self.tables = Tables("looker", self.store.table)

    def service(self, labels: Sequence[str]) -> Service:
        gate = {"min_samples": 10, "resamples": 400}
        return looker(labels=list(labels), trainer=self.trainer, gate=gate, image={"size": 160})

    def collect(self, numbers: Sequence[int], labels: Sequence[str]) -> None:
        made, given = [], []
        for number in numbers:
            name = labels[number % len(labels)]
            centre = np.random.default_rng(len(name) * 100 + ord(name[0])).uniform(0, 2, self.backbone.length)
            features = np.maximum(centre + np.random.default_rng(number).normal(0, 1, self.backbone.length), 0)
            chance = 0.1 if number % 3 else 1.0
            made.append(withheld(number, features.tolist(), self.backbone.digest, selection_probability=chance))
            given.append(label(made[-1], name))
        verdicts = [Verdict(sample_id=s.sample_id, accepted=True, at=START) for s in made]
        for table, records, kind in (
            ("samples", made, Sample),
            ("labels", given, Label),
            ("verdicts", verdicts, Verdict),
        ):
            self.tables.merge(table, [to_row(r) for r in records], kind)

    def train(self, labels: Sequence[str], base: Base | None = None) -> Candidate:
        dataset = freeze(self.store, self.tables, "looker")
        return train(self.store, self.tables, self.service(labels), dataset, base, "head", 0)


def base_of(candidate: Candidate) -> Base:
    return Base(version="1", dataset=candidate.dataset, layers=candidate.layers)


@kinds
def test_a_new_label_goes_from_the_service_to_the_gate_and_to_a_node(
    kind: str, shared: Path, backbone: Backbone
) -> None:
    field = Field(shared, backbone, head={"kind": kind, "units": 128})
    field.collect(range(120), ["cat", "dog"])
    first = field.train(["cat", "dog"])
    field.collect(range(1000, 1240), ["cat", "dog", "bird"])
    labels = ["cat", "dog", "bird"]
    second = field.train(labels, base_of(first))
    service = field.service(labels)
    dataset = freeze(field.store, field.tables, "looker")
    decision = evaluate(field.store, field.tables, service, dataset, second).decision
    assert decision.verdict == "pass", decision.reason
    assert decision.champion is not None
    assert decision.candidate is not None
    assert decision.champion < 0.85, "the champion is wrong on what it has never heard of"
    assert decision.candidate > 0.9
    head = read_head(field.store.get(blob_key(second.layers["head"])))
    assert isinstance(head, HiddenHead if kind in {"ranpac", "mlp"} else LinearHead)
    serve(field, service, second, labels)
    serve(field, service, first, ["cat", "dog"])


def serve(field: Field, service: Service, candidate: Candidate, labels: list[str]) -> None:
    """Release and serve it, as a node does."""
    version = ModelVersion(
        service="looker", version="1", run_id="r", key=candidate.key, dataset=candidate.dataset, layers=candidate.layers
    )
    release = build_release(field.store, service, version, [picture(1)], {})
    layers = {str(x.role): field.store.get(blob_key(x.digest)) for x in release.layers}
    named = release.layer("head")
    assert named is not None
    assert named.media_type.endswith("hidden-head") == layers["head"].startswith(HIDDEN)
    model = load_model(service.node_config(), layers, field.backbone.digest, interpreters=1)
    runtime = Runtime(1)
    runtime.switch("looker", Loaded(release.digest, "1", service.node_config(), model))
    answer, _ = runtime.predict("looker", picture(2))
    assert model.labels == tuple(labels)
    assert answer.prediction in labels
    assert answer.probabilities is not None
    assert sum(answer.probabilities) == pytest.approx(1)


def test_importance_and_balance_change_what_is_learned(shared: Path, backbone: Backbone) -> None:
    heads = set()
    for trainer in ({}, {"importance": True}, {"balanced": True}):
        field = Field(shared, backbone, **trainer)
        field.collect(range(90), ["cat", "cat", "cat", "dog"])
        heads.add(field.train(["cat", "dog"]).layers["head"])
    assert len(heads) == 3


def hidden(seed: int | None = 5) -> HiddenHead:
    rng = np.random.default_rng(0)
    first = projection(5, 6, 40)
    bias, second, last = (rng.normal(size=shape).astype(np.float32) for shape in ((40,), (40, 3), (3,)))
    return HiddenHead(first, bias, second, last, ("größe", "b", "c"), seed)


def test_a_random_layer_is_the_same_everywhere_and_nearly_normal() -> None:
    made = projection(3, 200, 500)
    assert digest(projection(0, 2, 3).tobytes()) == (
        "sha256:e5a03d5848e66b73b972845380fb2b79130780421c524c14521fa485b48c1797"
    )
    assert abs(made.mean()) < 0.01
    assert made.std() == pytest.approx(1, abs=0.01)
    assert np.mean(np.abs(made) < 1) == pytest.approx(0.68, abs=0.02)
    assert abs(np.corrcoef(made[0], made[1])[0, 1]) < 0.15


def test_a_drawn_layer_travels_as_its_seed() -> None:
    features = np.random.default_rng(1).normal(size=(9, 6)).astype(np.float32)
    drawn, kept = hidden(), hidden(None)
    assert np.array_equal(drawn.probabilities(features), kept.probabilities(features))
    assert (
        len(
            HiddenHead(
                projection(5, 600, 40), *(kept.first_bias, kept.second, kept.second_bias), kept.labels, 5
            ).to_bytes()
        )
        < 4000
    )
    for one in (drawn, kept):
        again = read_head(one.to_bytes())
        assert again.to_bytes() == one.to_bytes()
        assert np.array_equal(again.probabilities(features), one.probabilities(features))


def test_a_layer_that_is_drawn_otherwise_is_refused() -> None:
    wrong = HiddenHead(
        projection(6, 6, 40), *(hidden().first_bias, hidden().second, hidden().second_bias), ("a", "b", "c"), 5
    )
    with pytest.raises(UnloadableModel, match="the projection of seed 5 is another one here"):
        read_head(wrong.to_bytes())


@pytest.mark.parametrize("seed", [None, 5])
def test_no_damage_to_a_hidden_head_is_another_error(seed: int | None) -> None:
    whole = hidden(seed).to_bytes()
    for cut in (0, 10, len(HIDDEN), 100, len(whole) - 1):
        with pytest.raises(UnloadableModel, match="does not load"):
            read_head(whole[:cut])
    for at in range(0, len(whole), 7):
        try:
            read_head(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        except UnloadableModel:
            continue


def test_layers_that_do_not_fit_are_refused() -> None:
    one = hidden(None)
    for wrong in (
        HiddenHead(one.first, one.first_bias, one.second, one.second_bias, ("a", "b")),
        HiddenHead(one.first[:, :9], one.first_bias, one.second, one.second_bias, one.labels),
    ):
        with pytest.raises(UnloadableModel, match="do not fit"):
            read_head(wrong.to_bytes())
    with pytest.raises(UnloadableModel):
        LinearHead.from_bytes(one.to_bytes())
