"""Which backbone a head is fitted on when the champion has one and the service names one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.learning.train import Base, Candidate, candidate_key, put_blob
from edgeloop.learning.trainers import image
from edgeloop.samples.records import canonical, digest
from tests.unit.samples.make import looker


@pytest.fixture(autouse=True)
def any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any bytes are a backbone."""
    monkeypatch.setattr(image, "Backbone", lambda content, name: SimpleNamespace(digest=name))
    monkeypatch.setattr(image, "read_backbone", lambda path: SimpleNamespace(digest=digest(path.read_bytes())))


def used(tmp_path: Path, setting: str, **layers: Any) -> str:
    store = MemoryStore()
    base = Base(version="1", dataset="d", layers={"backbone": put_blob(store, b"champion's"), **layers})
    (tmp_path / "same.tflite").write_bytes(b"champion's")
    (tmp_path / "other.tflite").write_bytes(b"other")
    named = setting if "." not in setting else str(tmp_path / setting)
    return image.frozen_backbone(store, looker(trainer={"backbone": named}), base).digest


@pytest.mark.parametrize(
    ("setting", "layers", "expected"),
    [
        ("same.tflite", {}, b"champion's"),
        ("other.tflite", {}, b"other"),
        ("other.tflite", {"keras": "sha256:0"}, b"champion's"),
        ("gone.tflite", {}, b"champion's"),
        ("xception", {}, b"champion's"),
    ],
)
def test_a_file_that_the_service_names_anew_is_used(
    tmp_path: Path, setting: str, layers: dict[str, str], expected: bytes
) -> None:
    assert used(tmp_path, setting, **layers) == digest(expected)


def test_a_backbone_that_was_trained_here_outlives_the_heads_on_it(tmp_path: Path) -> None:
    """The file is what came before it."""
    store, service = MemoryStore(), looker(trainer={"backbone": str(tmp_path / "other.tflite")})
    (tmp_path / "other.tflite").write_bytes(b"other")
    layers = {"backbone": put_blob(store, b"champion's")}
    full = Base(version="1", dataset="d", layers=layers, key="sha256:01")
    head = Base(version="2", dataset="d", layers=layers, key="sha256:02")
    for key, mode, base in (("sha256:01", "full", None), ("sha256:02", "head", full)):
        made = Candidate(
            key=key,
            service=service.name,
            mode=mode,
            dataset="d",
            base=base,
            seed=0,
            layers=layers,
            trained_on={},
            seconds=0,
        )
        store.create(candidate_key(service.name, key), canonical(made.model_dump(mode="json")))
    assert image.frozen_backbone(store, service, head).digest == layers["backbone"]
    assert image.frozen_backbone(store, service, head.model_copy(update={"key": None})).digest == digest(b"other")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ({"backbone": "sha256:b", "keras": "sha256:k"}, {"keras": "sha256:k"}),
        ({"backbone": "sha256:other", "keras": "sha256:k"}, {}),
        ({"backbone": "sha256:b"}, {}),
        (None, {}),
    ],
    ids=["same backbone", "another backbone", "never trained here", "no champion"],
)
def test_what_a_backbone_was_exported_from_is_carried_on_with_it(
    layers: dict[str, str] | None, expected: dict[str, str]
) -> None:
    """Other precisions are made of it, and the next full training starts from it."""
    base = None if layers is None else Base(version="1", dataset="d", layers=layers)
    assert image.trained_source(base, "sha256:b") == expected


def test_a_head_round_keeps_the_keras_backbone_of_the_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    base = Base(version="1", dataset="d", layers={"backbone": "sha256:b", "keras": "sha256:k", "head": "sha256:old"})
    trainer = image.FrozenTrainer(SimpleNamespace(service=looker(), store=store))  # type: ignore[arg-type]
    monkeypatch.setattr(trainer, "_head", lambda *_: "sha256:new")
    material: Any = SimpleNamespace(truth=["cat", "dog"] * 20, rows=[])
    backbone: Any = SimpleNamespace(digest="sha256:b")
    made = trainer.layers(material, base, backbone)
    assert made == {"backbone": "sha256:b", "keras": "sha256:k", "head": "sha256:new"}
