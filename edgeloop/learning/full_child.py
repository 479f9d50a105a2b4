"""The process that a full training runs in: TensorFlow never gives its memory back.

`python -m edgeloop.learning.full_child --job DIR [--attached]`, started by `edgeloop.learning.full_job.run_full`. What
it has to say goes to stdout as JSON lines, a failure to stderr as one line. Attached, it ends when its starter does:
nobody would pick up its files, and a second one may be at work on them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np

from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.exports.litert import export_litert, litert_agreement, save_keras, write_whole
from edgeloop.exports.tensorflow import load_tensorflow
from edgeloop.learning.augment import Images
from edgeloop.learning.checkpoint import Checkpoints
from edgeloop.learning.full_config import (
    EpochProgress,
    Labels,
    Mask,
    Say,
    TrainedBackbone,
    check_examples,
    check_held_out,
)
from edgeloop.learning.full_job import CHECKPOINT, LOCK, FullJob, FullResult, finished, job_identity
from edgeloop.learning.full_steps import choose_precision, gpu_capabilities
from edgeloop.learning.full_training import fit_backbone
from edgeloop.learning.xception import build_backbone, first_line, weights_digest


def run_job(job_dir: Path, progress: EpochProgress | None = None, say: Say = lambda _: None) -> FullResult:
    """Train what `job_dir` asks for, in this process; leaves backbone.tflite, backbone.keras, then result.json.

    Goes on from the last checkpoint of this very job; one that is done already is not done again.
    """
    with _alone(job_dir):
        job, images, labels, held_out = _read_job(job_dir)
        identity = job_identity(job_dir)
        done = finished(job_dir, identity)
        if done is not None:
            say("this training was finished before")
            return done
        (job_dir / "result.json").unlink(missing_ok=True)
        clock = _Clock()
        load_tensorflow()
        backbone = build_backbone(images.shape[1], job.weights, job.training.seed)
        clock.lap("load")
        training = job.training.model_copy(
            update={"precision": choose_precision(job.training.precision, gpu_capabilities())}
        )
        versions = {name: version(name) for name in ("keras", "numpy")} | {
            "tensorflow": load_tensorflow()[0].__version__
        }
        kept = Checkpoints(job_dir / CHECKPOINT, {"job": identity, "precision": training.precision, **versions}, say)
        trained = fit_backbone(
            backbone,
            images,
            labels,
            job.n_classes,
            training,
            progress,
            held_out=held_out,
            pretrained=job.weights is not None,
            checkpoints=kept,
        )
        clock.lap("train")
        return _export(job_dir, job, trained, identity, images[:16], clock)


def _export(
    job_dir: Path, job: FullJob, trained: TrainedBackbone, identity: str, examples: Images, clock: _Clock
) -> FullResult:
    litert = job_dir / "backbone.tflite"
    export_litert(trained.model, litert, job.quantize)
    save_keras(trained.model, job_dir / "backbone.keras")
    clock.lap("export")
    agreement = litert_agreement(trained.model, litert, np.asarray(examples))
    clock.lap("check")
    result = _describe(job, trained, identity, litert.read_bytes(), agreement, clock.seconds)
    write_whole(job_dir / "result.json", result.model_dump_json(indent=2).encode())
    (job_dir / CHECKPOINT).unlink(missing_ok=True)
    return result


@contextmanager
def _alone(job_dir: Path) -> Iterator[None]:
    """Wait until no other process works in `job_dir`, and keep others out; the lock goes with the process."""
    try:
        lock = (job_dir / LOCK).open("wb")
    except OSError as error:
        raise BadInput(f"{job_dir} cannot be worked in ({error.strerror}): prepare it with write_job") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_job(job_dir: Path) -> tuple[FullJob, Images, Labels, Mask]:
    try:
        job = FullJob.model_validate_json((job_dir / "job.json").read_bytes())
        images = np.load(job_dir / "images.npy", mmap_mode="r")
        labels, held_out = np.load(job_dir / "labels.npy"), np.load(job_dir / "held_out.npy")
    except (OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise BadInput(f"{job_dir} holds no training job ({first_line(error)}): prepare it with write_job") from error
    check_examples(images, labels, job.n_classes)
    check_held_out(labels, held_out)
    return job, images, labels, held_out


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._last = round(now - self._last, 2), now


def _describe(
    job: FullJob, trained: TrainedBackbone, identity: str, content: bytes, agreement: float, seconds: dict[str, float]
) -> FullResult:
    return FullResult(
        job=identity,
        feature_dim=trained.model.output_shape[-1],
        input_size=trained.model.input_shape[1],
        quantize=job.quantize,
        precision=trained.precision,
        weights_digest=weights_digest(trained.model),
        litert_digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        litert_bytes=len(content),
        agreement=agreement,
        stopped=trained.stopped,
        best_epoch=trained.best_epoch,
        history=trained.history,
        seconds=seconds,
    )


def _tell(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_starter() -> None:
    """Wait for the end of stdin, which the starter holds open, in a thread; then end at once, whatever is under way."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock a thread must not hold when Python ends
            pass
        os._exit(1)

    threading.Thread(target=wait, name="starter", daemon=True).start()


def main(arguments: list[str]) -> int:
    """Run the job of ``--job DIR``; returns the exit code."""
    attached = "--attached" in arguments
    asked = [a for a in arguments if a != "--attached"]
    if len(asked) != 2 or asked[0] != "--job":
        sys.stderr.write("usage: python -m edgeloop.learning.full_child --job DIR [--attached]\n")
        return BadInput.exit_code
    if attached:
        _end_with_starter()
    try:
        run_job(
            Path(asked[1]),
            lambda epoch, of, numbers: _tell({"epoch": epoch, "of": of, **numbers}),
            lambda text: _tell({"said": text}),
        )
    except EdgeloopError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
