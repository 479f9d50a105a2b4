"""A training in its own process: killed, refused, finished before, or left alone, it ends well or says why."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.errors import BadInput
from edgeloop.learning import full_child, full_job
from edgeloop.learning.full_config import EpochProgress, FullTraining, Say, check_examples, check_held_out
from edgeloop.learning.full_job import CHECKPOINT, LOCK, FullJob, JobNotWritten, TrainingFailed, busy
from tests.unit.learning.tiny import N_CLASSES, bars, last, small_base

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.timeout(480)]
ROOT = Path(__file__).parents[3]
EPOCHS = 6
STARTER = """
import sys
from pathlib import Path
from edgeloop.learning.full_job import run_full
run_full(Path(sys.argv[1]), lambda epoch, of, numbers: print(epoch, flush=True))
"""


def job(weights: Path | None = None, epochs: int = EPOCHS) -> FullJob:
    start = None if weights is None else str(weights)
    return FullJob(
        n_classes=N_CLASSES, weights=start, training=FullTraining(epochs=epochs, patience=epochs, batch_size=8, seed=3)
    )


def lay_out(job_dir: Path, what: FullJob, n: int = 240) -> Path:
    full_job.write_job(job_dir, what, *bars(n), last(n, 40))
    return job_dir


def wait_until_free(job_dir: Path) -> None:
    with (job_dir / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_a_killed_training_goes_on_and_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    base = small_base(tmp_path / "base.keras")
    whole = full_job.run_full(lay_out(tmp_path / "whole", job(base)))
    cut = lay_out(tmp_path / "cut", job(base))
    command = [sys.executable, "-c", STARTER, str(cut)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as starter:
        assert starter.stdout is not None
        assert [starter.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        starter.send_signal(signal.SIGKILL)
    wait_until_free(cut)  # the child ends with its starter
    assert not (cut / "result.json").exists() and (cut / CHECKPOINT).exists()
    lay_out(cut, job(base))
    told: list[int] = []
    lines: list[str] = []
    result = full_job.run_full(cut, lambda epoch, of, numbers: told.append(epoch), lines.append)
    (line,) = lines
    assert line == f"going on after epoch {told[0] - 1}, from its checkpoint"
    assert told == list(range(told[0], EPOCHS + 1)) and told[0] >= 3
    assert result.weights_digest == whole.weights_digest
    assert result.litert_digest == whole.litert_digest
    assert len(result.history) == EPOCHS
    assert not (cut / CHECKPOINT).exists(), "a finished training needs none"
    _a_finished_one_is_not_done_again(cut, base, result.weights_digest)


def _a_finished_one_is_not_done_again(job_dir: Path, base: Path, digest: str) -> None:
    lay_out(job_dir, job(base))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(full_child, "fit_backbone", lambda *_, **__: pytest.fail("trained twice"))
        assert full_child.run_job(job_dir).weights_digest == digest
    lay_out(job_dir, job(base, epochs=7))
    assert not (job_dir / "result.json").exists(), "another job has another result"


def test_a_job_is_another_when_anything_in_it_is(tmp_path: Path) -> None:
    base = small_base(tmp_path / "base.keras")
    images, labels = bars(40)
    other = images.copy()
    other[0, 0, 0, 0] ^= 1
    variants: list[tuple[FullJob, Any, Any, Any]] = [
        (job(base), images, labels, last(40, 8)),
        (job(base, epochs=2), images, labels, last(40, 8)),
        (job(base), other, labels, last(40, 8)),
        (job(base), images, 1 - labels, last(40, 8)),
        (job(base), images, labels, None),
        (job(), images, labels, last(40, 8)),
    ]
    seen: set[str] = set()
    for what in variants:
        full_job.write_job(tmp_path / "job", *what)
        seen.add(full_job.job_identity(tmp_path / "job"))
    small_base(base, seed=5)
    full_job.write_job(tmp_path / "job", *variants[0])
    seen.add(full_job.job_identity(tmp_path / "job"))
    assert len(seen) == len(variants) + 1


def test_laying_out_the_same_job_keeps_its_checkpoint_and_another_does_not(tmp_path: Path) -> None:
    for epochs, there in ((6, True), (7, False)):
        lay_out(tmp_path, job(), n=80)
        (tmp_path / CHECKPOINT).write_bytes(b"some")
        lay_out(tmp_path, job(epochs=epochs), n=80)
        assert (tmp_path / CHECKPOINT).exists() is there


def test_a_full_disk_is_told_of_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(JobNotWritten, match=r"takes no training job \(No space left on device\): make room.* 2 MB"):
        lay_out(tmp_path / "job", job(), n=80)
    assert list((tmp_path / "job").iterdir()) == []


def test_a_folder_is_busy_while_a_process_works_in_it(tmp_path: Path) -> None:
    assert not busy(tmp_path)
    with full_child._alone(tmp_path):
        assert busy(tmp_path)
    assert not busy(tmp_path)


def test_a_child_that_dies_is_reported_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path, job(epochs=50), n=80)
    follow = full_job._follow
    children: list[int] = []

    def killing(process: subprocess.Popen[str], progress: EpochProgress | None, say: Say) -> None:
        children.append(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        follow(process, progress, say)

    monkeypatch.setattr(full_job, "_follow", killing)
    with pytest.raises(TrainingFailed, match=r"killed by signal 9.*lower trainer\.full\.batch_size: it said nothing"):
        full_job.run_full(tmp_path)
    (tmp_path / CHECKPOINT).touch()
    with pytest.raises(TrainingFailed, match="run it again, it goes on from its checkpoint"):
        full_job.run_full(tmp_path)
    assert len(children) == 2


def test_a_child_that_refuses_its_job_says_why(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"n_classes": 1}))
    with pytest.raises(TrainingFailed, match=r"exit code 2.*holds no training job"):
        full_job.run_full(tmp_path)


@pytest.mark.parametrize("reason", [KeyboardInterrupt, RuntimeError])
def test_the_child_is_ended_when_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: type[BaseException]
) -> None:
    lay_out(tmp_path, job(epochs=1000), n=80)
    children: list[subprocess.Popen[str]] = []

    def give_up(process: subprocess.Popen[str], *_: object) -> None:
        children.append(process)
        raise reason

    monkeypatch.setattr(full_job, "_follow", give_up)
    with pytest.raises(reason):
        full_job.run_full(tmp_path)
    assert children[0].returncode == -signal.SIGKILL


@pytest.mark.parametrize("change", ["float", "labels", "one class", "out of range"])
def test_examples_that_cannot_be_trained_on_are_refused(change: str) -> None:
    images, labels = bars(4)
    wrong: dict[str, tuple[Any, Any]] = {
        "float": (images.astype(np.float32), labels),
        "labels": (images, labels[:3]),
        "one class": (images, labels * 0),
        "out of range": (images, labels + 1),
    }
    with pytest.raises(BadInput):
        check_examples(*wrong[change], N_CLASSES)


def test_what_is_held_out_must_leave_something_to_learn() -> None:
    labels = np.asarray([0, 1, 0, 1])
    with pytest.raises(BadInput, match="leave one class: hold out fewer"):
        check_held_out(labels, labels == 1)
    with pytest.raises(BadInput, match="give one bool a label"):
        check_held_out(labels, np.asarray([0, 1]).astype(np.bool_))
