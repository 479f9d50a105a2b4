"""A round's full training: what becomes of samples, where its state lies, and that it goes when it is not needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeloop.clients.models import Backbone
from edgeloop.learning import full_round
from edgeloop.learning.full_child import _alone
from edgeloop.learning.full_job import CHECKPOINT, FullJob
from edgeloop.learning.full_round import train_backbone, training_folder
from edgeloop.learning.pool import sample_rows
from edgeloop.learning.progress import Counted
from edgeloop.learning.train import Candidate, train
from edgeloop.quality.ingest import ingest
from edgeloop.samples.dataset import freeze, members_of
from edgeloop.samples.records import Verdict, digest
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from tests.unit.learning.photos import Photo, World
from tests.unit.learning.tiny import bars, small_base
from tests.unit.samples.make import START, looker

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.timeout(480)]
KEY = digest(b"a candidate")


class Cut(Exception):
    """The power is gone."""


def service(base: Path, **full: Any) -> Service:
    trainer = {"backbone": f"xception:{base}", "full": {"epochs": 4, "batch_size": 8, "validation": 0.5} | full}
    return looker(image={"size": 71}, trainer=trainer)


def photos(count: int) -> list[Photo]:
    images, labels = bars(count)
    made = []
    for image, label in zip(images, labels, strict=True):
        sink = io.BytesIO()
        Image.fromarray(image).save(sink, "JPEG", quality=95)
        made.append(Photo(sink.getvalue(), ("cat", "dog")[label]))
    return made


def world(folder: Path, of: Service, count: int = 160) -> World:
    """Labelled and accepted pictures, each a group of its own."""
    made = World(folder, of)
    made.reference(photos(count))
    ingest(made.store, made.tables, of)
    names = [row["sample_id"] for row in made.tables.read("samples", ["sample_id"])]
    accepted = [Verdict(sample_id=name, accepted=True, reasons=[], suite="none", at=START) for name in names]
    made.tables.merge("verdicts", [to_row(v) for v in accepted], Verdict)
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("base") / "base.keras")


def full(made: World, scratch: Path, said: Any) -> Candidate:
    dataset = freeze(made.store, made.tables, "looker")
    return train(made.store, made.tables, made.service, dataset, None, "full", 7, said, scratch)


def test_a_round_that_was_cut_off_goes_on_and_makes_the_same_candidate(tmp_path: Path, base: Path) -> None:
    whole = full(world(tmp_path / "whole", service(base)), tmp_path / "other", lambda _: None)
    made = world(tmp_path / "cut", service(base))
    lines: list[str] = []

    def cut(line: str) -> None:
        lines.append(line)
        if line.startswith("epoch 2/4"):
            raise Cut

    with pytest.raises(Cut):
        full(made, tmp_path / "scratch", cut)
    (folder,) = (tmp_path / "scratch" / "looker").iterdir()
    assert (folder / CHECKPOINT).exists()
    lines.clear()
    candidate = full(made, tmp_path / "scratch", lines.append)
    assert any(line.startswith("going on after epoch ") for line in lines)
    assert not any(line.startswith("epoch 1/4") for line in lines)
    assert candidate.layers == whole.layers
    assert not folder.exists(), "the candidate is recorded"
    counts = [(line.stage, line.done, line.of) for line in lines if isinstance(line, Counted)]
    assert ("epoch", 4, 4) in counts
    assert "held-out loss" in next(line for line in lines if line.startswith("epoch 4/4"))


class Asked:
    """Stands in for the process: notes the job and leaves files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.job = FullJob(n_classes=2)
        self.images, self.labels, self.aside = (np.zeros(0, np.int64) for _ in range(3))
        self.weights = b""
        monkeypatch.setattr(full_round, "run_full", self)

    def __call__(self, folder: Path, *_: object) -> None:
        self.job = FullJob.model_validate_json((folder / "job.json").read_bytes())
        self.images, self.labels, self.aside = (
            np.load(folder / f"{name}.npy") for name in ("images", "labels", "held_out")
        )
        self.weights = Path(str(self.job.weights)).read_bytes()
        for name in ("backbone.tflite", "backbone.keras"):
            (folder / name).write_bytes(name.encode())


def asked_of(made: World, folder: Path | None, start: str | None = None) -> tuple[dict[str, str], list[str]]:
    dataset = freeze(made.store, made.tables, "looker")
    pool = [m for m in members_of(made.tables, "looker", dataset.tables) if m.split == "pool"]
    rows = sample_rows(made.tables, [m.sample_id for m in pool])
    truth = [m.label for m in pool]
    return train_backbone(
        made.store, made.tables, made.service, [rows[m.sample_id] for m in pool], truth, start, 7, folder
    ), truth


def test_the_job_is_what_the_service_asks_for(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    wanted = {"patience": 5, "precision": "mixed", "learning_rate": 0.01, "fine_tuning_rate": 0.002, "augment": False}
    of = service(base, **wanted)
    made = world(tmp_path, of.model_copy(update={"trainer": of.trainer.model_copy(update={"balanced": True})}))
    layers, truth = asked_of(made, None)
    assert asked.job.training.model_dump() == asked.job.training.model_dump() | wanted | {
        "balanced": True,
        "seed": 7,
        "epochs": 4,
        "batch_size": 8,
    }
    assert [("cat", "dog")[int(n)] for n in asked.labels] == truth
    assert list(asked.images.shape) == [len(truth), 71, 71, 3]
    assert 30 <= asked.aside.sum() < len(truth)
    assert asked.weights == base.read_bytes()
    assert made.store.get(blob_key(layers["backbone"])) == b"backbone.tflite"
    assert made.store.get(blob_key(layers["keras"])) == b"backbone.keras"


def test_training_starts_from_the_champion(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    made = world(tmp_path, service(base))
    champion = digest(b"the champion's own")
    made.store.create(blob_key(champion), b"the champion's own")
    asked_of(made, tmp_path / "folder", champion)
    assert asked.weights == b"the champion's own"


def test_states_of_other_candidates_are_swept_but_nothing_else(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Asked(monkeypatch)
    made = world(tmp_path, service(base))
    scratch = tmp_path / "scratch"
    mine, left, busy, empty = (training_folder(scratch, "looker", digest(name)) for name in (b"a", b"b", b"c", b"d"))
    assert mine and left and busy and empty
    someones = scratch / "looker" / "holiday"
    for folder in (left, busy, empty, someones):
        folder.mkdir(parents=True)
        (folder / CHECKPOINT).write_bytes(b"some")
        if folder != empty:
            (folder / "job.json").write_text("{}")
    with _alone(busy):
        asked_of(made, mine)
    assert {path for path in (mine, left, busy, empty, someones) if path.exists()} == {mine, busy, empty, someones}


def test_without_a_scratch_folder_nothing_is_left() -> None:
    assert training_folder(None, "looker", KEY) is None
    full_round.forget_training(None)


def test_a_trained_backbone_serves(tmp_path: Path, base: Path) -> None:
    made = world(tmp_path, service(base, epochs=1))
    layers, _ = asked_of(made, tmp_path / "folder")
    backbone = Backbone(made.store.get(blob_key(layers["backbone"])), layers["backbone"])
    assert (backbone.size, backbone.length) == (71, 16)
