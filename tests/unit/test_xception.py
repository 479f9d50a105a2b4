"""One real training in its own process, as small as it can be and still show each trap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.errors import BadInput
from edgeloop.exports import litert
from edgeloop.learning import full_job, xception
from edgeloop.learning.augment import Images
from edgeloop.learning.full_config import FullTraining
from edgeloop.learning.full_job import FullJob, FullResult
from edgeloop.learning.full_training import fit_backbone
from tests.unit.learning.tiny import N_CLASSES, bars, small_backbone

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.timeout(480)]


def job(epochs: int = 2) -> FullJob:
    return FullJob(n_classes=N_CLASSES, training=FullTraining(epochs=epochs, batch_size=8, seed=3))


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


def _trained(seed: int) -> Any:
    training = FullTraining(epochs=2, batch_size=8, seed=seed)
    return fit_backbone(small_backbone(seed), *bars(16), N_CLASSES, training).model


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


def test_missing_weights_name_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(xception.BackboneUnavailable, match="leave `weights` empty"):
        xception.build_backbone(71, str(tmp_path / "nowhere.keras"), seed=0)
    with pytest.raises(BadInput, match="71 or more"):
        xception.build_backbone(64, None, seed=0)
