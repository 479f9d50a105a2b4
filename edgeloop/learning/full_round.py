"""Full training within a round: samples become a job, the job's files become layers, and a cut-off one goes on.

The job's folder is named by the candidate, so a round that was killed finds what it had: the images, the last
checkpoint, or the finished result. It goes when the candidate is recorded.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.clients.objects import ObjectStore
from edgeloop.learning.blobs import sound_blob
from edgeloop.learning.full_config import FullTraining
from edgeloop.learning.full_job import FullJob, busy, run_full, write_job
from edgeloop.learning.held_out import held_out
from edgeloop.learning.progress import Progress, counted
from edgeloop.learning.trainers.candidates import put_blob
from edgeloop.samples.payloads import decode_image
from edgeloop.samples.records import hexdigest
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables, one_of

#: The name of a candidate's folder. Only folders of such a name that hold a job are ever swept away.
_TRAINING = re.compile(r"[0-9a-f]{64}")


def train_backbone(
    store: ObjectStore,
    tables: Tables,
    service: Service,
    rows: Sequence[Mapping[str, Any]],
    truth: Sequence[str],
    start: str | None,
    seed: int,
    folder: Path | None,
    progress: Progress = lambda _: None,
) -> dict[str, str]:
    """Train the backbone on ``rows`` and return its layers: ``backbone`` (LiteRT) and ``keras``.

    Args:
        store: gets the layers as blobs, and has the one that training starts from.
        tables: have the samples' groups: a part of them, whole groups, only says when to stop.
        service: an image classifier.
        rows: samples of the pool, with ``sample_id`` and ``payload``.
        truth: the label of each.
        start: blob digest of the champion's Keras model; None starts from what ``trainer.backbone`` names.
        seed: makes training repeatable.
        folder: see :func:`training_folder`; with None a training that is cut off starts over.
        progress: told of every epoch.

    Raises:
        Leak: a row is of the gate or the test split.
        TrainingFailed: the training process died.
    """
    labels = service.labels or []
    size = service.image.size if service.image else 71
    aside = held_out(service.name, _groups(tables, rows), truth, service.trainer.full.validation)
    images = np.stack([decode_image(r["payload"], size) for r in rows])
    numbers = np.asarray([labels.index(t) for t in truth], dtype=np.int64)
    with _kept(folder) as job_dir:
        job = FullJob(
            n_classes=len(labels),
            weights=_start_weights(store, service, start, job_dir),
            quantize=service.trainer.full.quantize,
            training=_training(service, seed),
        )
        write_job(job_dir, job, images, numbers, aside)
        progress(f"training Xception on {len(images) - aside.sum()} images, {aside.sum()} say when to stop")
        run_full(job_dir, _epoch_line(progress), progress)
        return {
            "backbone": put_blob(store, (job_dir / "backbone.tflite").read_bytes()),
            "keras": put_blob(store, (job_dir / "backbone.keras").read_bytes()),
        }


def training_folder(scratch: Path | None, service: str, key: str) -> Path | None:
    """Where the candidate ``key`` is trained: ``<scratch>/<service>/<hex>``; None without ``scratch``."""
    return None if scratch is None else scratch / service / hexdigest(key)


def forget_training(folder: Path | None) -> None:
    """Remove what training left in ``folder``: the candidate is recorded."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _training(service: Service, seed: int) -> FullTraining:
    full = service.trainer.full
    return FullTraining(
        epochs=full.epochs,
        batch_size=full.batch_size,
        learning_rate=full.learning_rate,
        fine_tuning_rate=full.fine_tuning_rate,
        augment=full.augment,
        patience=full.patience,
        precision=full.precision,
        balanced=service.trainer.balanced,
        seed=seed,
    )


def _groups(tables: Tables, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [r["sample_id"] for r in rows]
    found = tables.read("samples", ["sample_id", "group"], where=one_of("sample_id", names))
    groups = {r["sample_id"]: r["group"] for r in found}
    return [groups[name] for name in names]


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    """``folder``, with those of the service's other candidates swept away; else one that goes afterwards."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="edgeloop-train-") as passing:
            yield Path(passing)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        if other != folder and _TRAINING.fullmatch(other.name) and (other / "job.json").exists() and not busy(other):
            shutil.rmtree(other, ignore_errors=True)
    yield folder


def _start_weights(store: ObjectStore, service: Service, start: str | None, folder: Path) -> str | None:
    if start is None:
        return str(service.trainer.backbone).partition(":")[2] or None
    path = folder / "base.keras"
    path.write_bytes(sound_blob(store, start))
    return str(path)


def _epoch_line(progress: Progress) -> Callable[[int, int, Mapping[str, float]], None]:
    def line(epoch: int, of: int, numbers: Mapping[str, float]) -> None:
        shown = {
            "loss": "loss",
            "accuracy": "accuracy",
            "val_loss": "held-out loss",
            "val_accuracy": "held-out accuracy",
        }
        progress(
            counted("epoch", epoch, of, ", ".join(f"{shown[k]} {v:.3f}" for k, v in numbers.items() if k in shown))
        )

    return line
