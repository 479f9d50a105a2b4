"""Full training as a job in a directory, in a process of its own: TensorFlow never gives its memory back.

The parent writes the job (`write_job`), waits for it (`run_full`) and picks up files; only the child, which is
`python -m edgeloop.learning.full_job --job DIR`, imports TensorFlow. The two meet in files and progress lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.learning.augment import Images
from edgeloop.learning.litert import Quantize, export_litert, litert_agreement, save_keras, write_whole
from edgeloop.learning.xception import (
    FullTraining,
    Labels,
    Progress,
    TrainedBackbone,
    build_backbone,
    check_examples,
    first_line,
    fit_backbone,
    load_tensorflow,
    weights_digest,
)

_CHATTER = re.compile(r"[IW]\d{4} |WARNING: All log messages before absl|INFO: |To enable the following instructions")


class TrainingFailed(EdgeloopError):
    """The training process died or left no usable result."""


class FullJob(BaseModel):
    """job.json: what to train, beside images.npy (uint8 [n, s, s, 3]) and labels.npy (int64 [n])."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_classes: int = Field(ge=2)
    weights: str | None = None
    """Where to start: a .keras or .weights.h5 path, "imagenet", or `None` for random."""
    quantize: Quantize = "dynamic"
    training: FullTraining = FullTraining()


class FullResult(BaseModel):
    """result.json: what a finished job left beside it. Its presence means that every file is whole."""

    model_config = ConfigDict(frozen=True)

    feature_dim: int
    input_size: int
    quantize: Quantize
    weights_digest: str
    """Of the trained weights in float32; same data, seed and machine type give the same."""
    litert_digest: str
    litert_bytes: int
    agreement: float
    """Smallest cosine between LiteRT and Keras features over a few training images."""
    stopped: str
    history: list[dict[str, float]]
    seconds: dict[str, float]
    """Wall time by phase: load, train (with recalibration), export, check."""


def write_job(job_dir: Path, job: FullJob, images: Images, labels: Labels) -> None:
    """Lay out `job_dir` for `run_full`. Raises BadInput when the examples cannot be trained on."""
    check_examples(images, labels, job.n_classes)
    job_dir.mkdir(parents=True, exist_ok=True)
    np.save(job_dir / "images.npy", images)
    np.save(job_dir / "labels.npy", labels.astype(np.int64))
    write_whole(job_dir / "job.json", job.model_dump_json(indent=2).encode())


def run_job(job_dir: Path, progress: Progress | None = None) -> FullResult:
    """Train what `job_dir` asks for, in this process; leaves backbone.tflite, backbone.keras, then result.json."""
    job, images, labels = _read_job(job_dir)
    clock = _Clock()
    load_tensorflow()
    backbone = build_backbone(images.shape[1], job.weights, job.training.seed)
    clock.lap("load")
    trained = fit_backbone(backbone, images, labels, job.n_classes, job.training, progress)
    clock.lap("train")
    export_litert(trained.model, job_dir / "backbone.tflite", job.quantize)
    save_keras(trained.model, job_dir / "backbone.keras")
    clock.lap("export")
    agreement = litert_agreement(trained.model, job_dir / "backbone.tflite", images[:16])
    clock.lap("check")
    result = _describe(job, trained, job_dir / "backbone.tflite", agreement, clock.seconds)
    write_whole(job_dir / "result.json", result.model_dump_json(indent=2).encode())
    return result


def _read_job(job_dir: Path) -> tuple[FullJob, Images, Labels]:
    try:
        job = FullJob.model_validate_json((job_dir / "job.json").read_bytes())
        images, labels = np.load(job_dir / "images.npy"), np.load(job_dir / "labels.npy")
    except (OSError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise BadInput(f"{job_dir} holds no training job ({first_line(error)}): prepare it with write_job") from error
    check_examples(images, labels, job.n_classes)
    return job, images, labels


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self._last = round(now - self._last, 2), now


def _describe(
    job: FullJob, trained: TrainedBackbone, litert: Path, agreement: float, seconds: dict[str, float]
) -> FullResult:
    content = litert.read_bytes()
    return FullResult(
        feature_dim=trained.model.output_shape[-1],
        input_size=trained.model.input_shape[1],
        quantize=job.quantize,
        weights_digest=weights_digest(trained.model),
        litert_digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        litert_bytes=len(content),
        agreement=agreement,
        stopped=trained.stopped,
        history=trained.history,
        seconds=seconds,
    )


def _say(epoch: int, epochs: int, numbers: dict[str, float]) -> None:
    sys.stdout.write(json.dumps({"epoch": epoch, "of": epochs, **numbers}) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """The child: `--job DIR`. Progress goes to stdout as JSON lines, a failure to stderr as one line."""
    if len(arguments) != 2 or arguments[0] != "--job":
        sys.stderr.write("usage: python -m edgeloop.learning.full_job --job DIR\n")
        return BadInput.exit_code
    try:
        run_job(Path(arguments[1]), _say)
    except EdgeloopError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


# --- the parent: what everybody calls


def run_full(job_dir: Path, progress: Progress | None = None) -> FullResult:
    """Run the job in `job_dir` (see write_job) in a process of its own and wait for it.

    `progress` is told of every epoch. A child's death, by itself or by the system, raises TrainingFailed with its
    last lines; the child is ended when `progress` raises.
    """
    (job_dir / "result.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "edgeloop.learning.full_job", "--job", str(job_dir)]
    log = job_dir / "training.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=_child_environment()) as child,
    ):
        try:
            _follow(child, progress)
        except BaseException:
            child.kill()
            child.wait()  # on KeyboardInterrupt the context would leave before the child is gone
            raise
    return _collect(job_dir, child.returncode, log)


def _child_environment() -> dict[str, str]:
    """Ours, plus the folder this package was imported from: it need not be installed nor be where we stand."""
    here = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


def _follow(child: subprocess.Popen[str], progress: Progress | None) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if progress is not None and line.startswith('{"epoch"'):
            said = json.loads(line)
            progress(said.pop("epoch"), said.pop("of"), said)


def _collect(job_dir: Path, code: int, log: Path) -> FullResult:
    if code == 0:
        try:
            return FullResult.model_validate_json((job_dir / "result.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise TrainingFailed(f"training in {job_dir} left no result ({first_line(error)}): see {log}") from error
    said = deque(_words(log.read_text(errors="replace")), maxlen=3)
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = "; signal 9 is often a lack of memory: lower batch_size" if code == -9 else ""
    raise TrainingFailed(f"training in {job_dir} {ended}{hint}: {' | '.join(said) or 'it said nothing'} (log: {log})")


def _words(log: str) -> list[str]:
    """The lines of a log that say something; TensorFlow greets on stderr whatever its log level."""
    return [line for line in log.splitlines() if line.strip() and not _CHATTER.match(line)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
