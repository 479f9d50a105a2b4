"""Full training as a job in a directory, done in a process of its own and picked up as files.

The caller writes the job (`write_job`), has it done (`run_full`) and reads files; only the child, which is
`edgeloop.learning.full_child`, imports TensorFlow. A directory whose training was cut off keeps its checkpoint, so
writing and running the same job again goes on where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.errors import EdgeloopError
from edgeloop.exports.litert import Quantize, write_whole
from edgeloop.learning.augment import Images
from edgeloop.learning.full_config import (
    EpochProgress,
    FullTraining,
    Labels,
    Mask,
    Say,
    check_examples,
    check_held_out,
)
from edgeloop.learning.xception import first_line

CHECKPOINT = "checkpoint.npz"
LOCK = "lock"
_INPUTS = ("job.json", "images.npy", "labels.npy", "held_out.npy")
_CHATTER = re.compile(r"[IW]\d{4} |WARNING: All log messages before absl|INFO: |To enable the following instructions")


class TrainingFailed(EdgeloopError):
    """The training process died or left no usable result."""


class JobNotWritten(EdgeloopError):
    """The disk does not take a training job."""


class FullJob(BaseModel):
    """job.json: what to train, beside images.npy (uint8 [n, s, s, 3]), labels.npy (int64 [n]), held_out.npy (bool)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_classes: int = Field(ge=2)
    weights: str | None = None
    """Where to start: a .keras or .weights.h5 path, "imagenet", or `None` for random."""
    quantize: Quantize = "dynamic"
    training: FullTraining = FullTraining()


class FullResult(BaseModel):
    """result.json: what a finished job left beside it. Its presence means that every file is whole."""

    model_config = ConfigDict(frozen=True)

    job: str
    """Identity of the job that it is of."""
    feature_dim: int
    input_size: int
    quantize: Quantize
    precision: Literal["float32", "mixed"]
    """What training computed in; the exported files compute in float32 either way."""
    weights_digest: str
    """Of the trained weights in float32; same data, seed and machine type give the same."""
    litert_digest: str
    litert_bytes: int
    agreement: float
    """Smallest cosine between LiteRT and Keras features over a few training images."""
    stopped: str
    best_epoch: int
    """The epoch whose weights these are: the last, or the best where images were held out."""
    history: list[dict[str, float]]
    seconds: dict[str, float]
    """Wall time by phase: load, train (with recalibration), export, check; of the last process only."""


def write_job(job_dir: Path, job: FullJob, images: Images, labels: Labels, held_out: Mask | None = None) -> None:
    """Lay out `job_dir` for `run_full`; what a former run of another job left there goes.

    Raises BadInput when the examples cannot be trained on, JobNotWritten when the disk is full.
    """
    aside = np.zeros(len(labels), dtype=np.bool_) if held_out is None else held_out
    check_examples(images, labels, job.n_classes)
    check_held_out(labels, aside)
    former = _identity_or_none(job_dir)
    try:
        _write_inputs(job_dir, job, {"images": images, "labels": labels.astype(np.int64), "held_out": aside})
    except OSError as error:
        raise JobNotWritten(
            f"{job_dir} takes no training job ({error.strerror or error}): make room on the disk, images need"
            f" {images.nbytes // 1_000_000 + 1} MB and training about 1000 MB"
        ) from error
    if job_identity(job_dir) != former:
        for name in (CHECKPOINT, "result.json"):
            (job_dir / name).unlink(missing_ok=True)


def _write_inputs(job_dir: Path, job: FullJob, arrays: dict[str, Any]) -> None:
    job_dir.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        beside = job_dir / f".{name}.part"
        try:
            with beside.open("wb") as sink:
                np.save(sink, array)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        beside.replace(job_dir / f"{name}.npy")
    write_whole(job_dir / "job.json", job.model_dump_json(indent=2).encode())


def job_identity(job_dir: Path) -> str:
    """sha256 over everything that a training follows from, the weights it starts from included."""
    whole = hashlib.sha256()
    weights = json.loads((job_dir / "job.json").read_bytes())["weights"]
    started = [Path(weights)] if weights and Path(weights).is_file() else []
    for path in [*(job_dir / name for name in _INPUTS), *started]:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{whole.hexdigest()}"


def _identity_or_none(job_dir: Path) -> str | None:
    try:
        return job_identity(job_dir)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def finished(job_dir: Path, identity: str) -> FullResult | None:
    """The result of this very job, if it is there with its files."""
    try:
        result = FullResult.model_validate_json((job_dir / "result.json").read_bytes())
    except (OSError, ValidationError):
        return None
    whole = all((job_dir / name).is_file() for name in ("backbone.tflite", "backbone.keras"))
    return result if whole and result.job == identity else None


def busy(job_dir: Path) -> bool:
    """Whether a process is at work in ``job_dir``."""
    try:
        with (job_dir / LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def run_full(job_dir: Path, progress: EpochProgress | None = None, say: Say = lambda _: None) -> FullResult:
    """Run the job in `job_dir` (see write_job) in a process of its own and wait for it.

    `progress` is told of every epoch, `say` of what else is worth a line. A child's death, by itself or by the system,
    raises TrainingFailed with its last lines; the child is ended when one of them raises. Run again, it goes on after
    the last epoch that was told of.
    """
    command = [sys.executable, "-m", "edgeloop.learning.full_child", "--job", str(job_dir), "--attached"]
    log = job_dir / "training.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_child_environment(),
        ) as child,
    ):
        try:
            _follow(child, progress, say)
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


def _follow(child: subprocess.Popen[str], progress: EpochProgress | None, say: Say) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith('{"said"'):
            say(json.loads(line)["said"])
        elif progress is not None and line.startswith('{"epoch"'):
            told = json.loads(line)
            progress(told.pop("epoch"), told.pop("of"), told)


def _collect(job_dir: Path, code: int, log: Path) -> FullResult:
    if code == 0:
        try:
            return FullResult.model_validate_json((job_dir / "result.json").read_bytes())
        except (OSError, ValidationError) as error:
            raise TrainingFailed(f"training in {job_dir} left no result ({first_line(error)}): see {log}") from error
    said = deque(_words(log.read_text(errors="replace")), maxlen=3)
    ended = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    hint = "; signal 9 is often a lack of memory: lower trainer.full.batch_size" if code == -9 else ""
    hint += "; run it again, it goes on from its checkpoint" if code < 0 and (job_dir / CHECKPOINT).exists() else ""
    raise TrainingFailed(f"training in {job_dir} {ended}{hint}: {' | '.join(said) or 'it said nothing'} (log: {log})")


def _words(log: str) -> list[str]:
    """The lines of a log that say something; TensorFlow greets on stderr whatever its log level."""
    return [line for line in log.splitlines() if line.strip() and not _CHATTER.match(line)]
