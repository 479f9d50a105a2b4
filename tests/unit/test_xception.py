"""One real training in its own process, as small as it can be and still show each trap."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.errors import BadInput
from edgeloop.learning import full_job, litert, xception
from edgeloop.learning.augment import Images, augment
from edgeloop.learning.full_job import FullJob, FullResult, TrainingFailed

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.timeout(240)]

N_CLASSES = 2


def bars(n: int, seed: int = 0) -> tuple[Images, xception.Labels]:
    """Noisy pictures of one dark bar, lying (0) or standing (1)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % N_CLASSES
    images = rng.integers(180, 255, (n, 71, 71, 3)).astype(np.uint8)
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(15, 45)
        image[(slice(at, at + 12), slice(8, 63))[:: 1 if label == 0 else -1]] //= 5
    return images, labels.astype(np.int64)


def job(epochs: int = 2) -> FullJob:
    return FullJob(n_classes=N_CLASSES, training=xception.FullTraining(epochs=epochs, batch_size=8, seed=3))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FullResult, list[int]]:
    """One job run to its end: its directory, its result, the epochs it told of."""
    job_dir = tmp_path_factory.mktemp("job")
    full_job.write_job(job_dir, job(), *bars(16))
    told: list[int] = []
    result = full_job.run_full(job_dir, lambda epoch, of, numbers: told.append(epoch))
    return job_dir, result, told


def test_a_job_tells_of_every_epoch_and_leaves_whole_files(
    finished: tuple[Path, FullResult, list[int]],
) -> None:
    job_dir, result, told = finished
    assert told == [1, 2]
    assert result.stopped == "epochs"
    assert result.feature_dim == 2048
    assert (job_dir / "backbone.tflite").stat().st_size == result.litert_bytes < 25_000_000
    assert (job_dir / "backbone.keras").stat().st_size < 100_000_000, "optimizer slots were saved as well"
    assert not list(job_dir.glob(".*.part*"))
    assert full_job._words((job_dir / "training.log").read_text()) == [], "the child warned of something"


def test_exported_features_match_those_of_keras(finished: tuple[Path, FullResult, list[int]]) -> None:
    job_dir, result, _ = finished
    backbone = xception.build_backbone(71, str(job_dir / "backbone.keras"), seed=0)
    fresh, _ = bars(8, seed=9)
    assert xception.weights_digest(backbone) == result.weights_digest
    assert result.agreement > 0.99
    assert litert.litert_agreement(backbone, job_dir / "backbone.tflite", fresh) > 0.99


def small_backbone() -> Any:
    """A stand-in that trains in a second, of the layers that Xception is made of."""
    _, keras = xception.load_tensorflow()
    layers = [
        keras.layers.Rescaling(1 / 127.5, offset=-1.0),
        keras.layers.SeparableConv2D(8, 3, strides=3),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential([keras.Input((71, 71, 3), dtype="uint8"), *layers])


def _trained(seed: int) -> Any:
    _, keras = xception.load_tensorflow()
    keras.utils.clear_session()  # names are numbered from the start, as in the fresh process that a job has
    keras.utils.set_random_seed(seed)
    training = xception.FullTraining(epochs=2, batch_size=8, seed=seed)
    return xception.fit_backbone(small_backbone(), *bars(16), N_CLASSES, training).model


def test_the_same_seed_trains_the_same_weights_and_exports_the_same_bytes(tmp_path: Path) -> None:
    once, again, other = (_trained(seed) for seed in (3, 3, 4))
    assert xception.weights_digest(once) == xception.weights_digest(again) != xception.weights_digest(other)
    for name, model in (("once", once), ("again", again), ("other", other)):
        litert.export_litert(model, tmp_path / name)
    assert (tmp_path / "once").read_bytes() == (tmp_path / "again").read_bytes() != (tmp_path / "other").read_bytes()


def _gap(backbone: Any, images: Images) -> float:
    """How far evaluation is from training mode, relative to the features' own size."""
    trained = backbone(images, training=True).numpy()
    evaluated = backbone(images, training=False).numpy()
    return float(np.linalg.norm(evaluated - trained) / np.linalg.norm(trained))


def test_evaluation_matches_training_only_after_recalibration() -> None:
    backbone = xception.build_backbone(71, None, seed=1)
    images, _ = bars(16)
    for _ in range(3):  # a few steps at momentum 0.99 leave the moving statistics near their start
        backbone(images, training=True)
    assert _gap(backbone, images) > 0.5
    xception.recalibrate_batchnorm(backbone, images, 16)
    assert _gap(backbone, images) < 0.01


def test_a_child_that_dies_is_reported_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_job.write_job(tmp_path, job(epochs=50), *bars(16))
    (tmp_path / "result.json").write_text("{}")
    child: list[int] = []
    follow = full_job._follow

    def killing(process: subprocess.Popen[str], progress: xception.Progress | None) -> None:
        child.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        follow(process, progress)

    monkeypatch.setattr(full_job, "_follow", killing)
    with pytest.raises(TrainingFailed, match="killed by signal 9"):
        full_job.run_full(tmp_path)
    assert child and not (tmp_path / "result.json").exists(), "a stale result would look like this run's"


def test_a_child_that_refuses_its_job_says_why(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"n_classes": 1}))
    with pytest.raises(TrainingFailed, match=r"exit code 2.*holds no training job"):
        full_job.run_full(tmp_path)


@pytest.mark.parametrize("reason", [KeyboardInterrupt, RuntimeError])
def test_the_child_is_ended_when_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: type[BaseException]
) -> None:
    full_job.write_job(tmp_path, job(epochs=1000), *bars(16))
    children: list[subprocess.Popen[str]] = []

    def give_up(process: subprocess.Popen[str], progress: xception.Progress | None) -> None:
        children.append(process)
        raise reason

    monkeypatch.setattr(full_job, "_follow", give_up)
    with pytest.raises(reason):
        full_job.run_full(tmp_path)
    assert children[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("change", ["float", "labels", "one class", "out of range"])
def test_examples_that_cannot_be_trained_on_are_refused(change: str) -> None:
    images, labels = bars(4)
    wrong = {
        "float": (images.astype(np.float32), labels),
        "labels": (images, labels[:3]),
        "one class": (images, labels * 0),
        "out of range": (images, labels + 1),
    }[change]
    with pytest.raises(BadInput):
        xception.check_examples(wrong[0], wrong[1], N_CLASSES)  # type: ignore[arg-type]


def test_missing_weights_name_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(xception.BackboneUnavailable, match="leave `weights` empty"):
        xception.build_backbone(71, str(tmp_path / "nowhere.keras"), seed=0)
    with pytest.raises(BadInput, match="71 or more"):
        xception.build_backbone(64, None, seed=0)


def test_augmentation_is_seeded_and_keeps_the_shape() -> None:
    images, _ = bars(6)
    once = augment(images, np.random.default_rng(5))
    assert once.shape == images.shape and once.dtype == np.uint8
    assert np.array_equal(once, augment(images, np.random.default_rng(5)))
    assert not np.array_equal(once, augment(images, np.random.default_rng(6)))
