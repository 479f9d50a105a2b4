"""The parent's side of a conversion: a folder with a job, a child that is bounded in time and memory, and its files."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from edgeloop.errors import EdgeloopError
from edgeloop.exports.litert import Form

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHATTER = re.compile(r"[IWE]\d{4} |WARNING: |INFO: |To enable the following|\s*warnings\.warn\(|fully_quantize")

#: The child's exit status where it knows that it lacked memory.
STARVED = errno.ENOMEM

#: What Python, the C library, a thread that cannot start and TensorFlow say where the child could not tell.
_STARVED_WORDS = re.compile("MemoryError|[Cc]annot allocate memory|Resource temporarily unavailable|OOM when")


class ConversionFailed(EdgeloopError):
    """A converter or compiler ended without the file that it was asked for."""


class Job(BaseModel):
    """job.json of the child."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Form | Literal["savedmodel"]
    seconds: int = Field(default=600, ge=1)
    """After so long it is ended."""
    memory_mb: int = Field(default=6000, ge=16)
    """Memory that it may write to."""


@dataclass(frozen=True)
class Served:
    """A SavedModel and what it answered."""

    layers: dict[str, bytes]
    """By role, see :data:`edgeloop.exports.savedmodel.PARTS`."""
    answers: NDArray[np.float32]
    """Probabilities [inputs, labels]."""
    seconds: NDArray[np.float64]
    """Time of each answer [inputs], alone in its process."""


def convert_litert(keras: bytes, job: Job, images: NDArray[np.uint8] | None = None) -> bytes:
    """The bytes of a .keras backbone as a LiteRT file; "int8" takes ranges from images, uint8 [n, s, s, 3].

    Raises:
        ConversionFailed: the child ended without it; the message has its last line.
    """
    with _workshop(keras, job) as name:
        folder = Path(name)
        if images is not None:
            np.save(folder / "images.npy", images)
        _run(folder, job)
        return _read(folder / "variant.tflite")


def convert_savedmodel(keras: bytes, head: bytes, inputs: Sequence[bytes], job: Job) -> Served:
    """A .keras backbone and a head as a SavedModel, and what that answers to ``inputs``.

    Raises:
        ConversionFailed: the child ended without it; the message has its last line.
    """
    from edgeloop.exports.savedmodel import pack

    with _workshop(keras, job) as name:
        folder = Path(name)
        (folder / "head").write_bytes(head)
        (folder / "inputs").mkdir()
        for number, payload in enumerate(inputs):
            (folder / "inputs" / f"{number:06}").write_bytes(payload)
        _run(folder, job)
        answers, seconds = (np.load(folder / f"{part}.npy") for part in ("answers", "seconds"))
        return Served(pack(folder / "saved_model"), answers, seconds)


def compile_edgetpu(compiler: str, litert: bytes, seconds: int = 600) -> bytes:
    """A full int8 LiteRT file as the Edge TPU's compiler writes it, ``variant_edgetpu.tflite``.

    Raises:
        ConversionFailed: the program failed, took too long, or left no file.
    """
    with tempfile.TemporaryDirectory(prefix="edgeloop-compile-") as name:
        folder = Path(name)
        (folder / "variant.tflite").write_bytes(litert)
        command = [compiler, "-s", "-o", str(folder), str(folder / "variant.tflite")]
        _wait(Path(compiler).name, command, dict(os.environ), seconds)
        return _read(folder / "variant_edgetpu.tflite")


def _workshop(keras: bytes, job: Job) -> tempfile.TemporaryDirectory[str]:
    made = tempfile.TemporaryDirectory(prefix="edgeloop-convert-")
    (Path(made.name) / "backbone.keras").write_bytes(keras)
    (Path(made.name) / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    return made


def _run(folder: Path, job: Job) -> None:
    here = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    # Some passes of the converter walk over sets of names: with one seed they walk alike, and the bytes are the same.
    quiet = {
        "PYTHONPATH": path,
        "PYTHONHASHSEED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    command = [sys.executable, "-m", "edgeloop.release.optimise.child", str(folder)]
    _wait(f"the converter to {job.form}", command, os.environ | quiet, job.seconds + 5, partial(_why, job))


def _why(job: Job, code: int, said: str) -> str:
    """Why the child ended, in words that lead somewhere."""
    if code == -signal.SIGALRM:
        return f"it took more than {job.seconds} s"
    if code < 0 or code == STARVED or _STARVED_WORDS.search(said):
        by = f" (signal {-code})" if code < 0 else ""
        return f"it ended{by} for want of memory, {job.memory_mb} MB is what it may take"
    return f"{said}; is the train extra installed?"


def _wait(
    what: str, command: list[str], env: dict[str, str], seconds: int, why: Callable[[int, str], str] = lambda _, s: s
) -> None:
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise ConversionFailed(f"{what} took more than {seconds} s: give it a quieter machine") from error
    except OSError as error:
        raise ConversionFailed(f"{what} does not start ({error}): install it anew") from error
    if done.returncode != 0:
        said = why(done.returncode, last_line(done.stderr))
        raise ConversionFailed(f"{what} failed ({said}): mend that, or leave the profile out of delivery.profiles")


def last_line(log: str) -> str:
    """The last line that says something; TensorFlow greets on stderr whatever its log level."""
    lines = [line.strip() for line in log.splitlines() if line.strip() and not _CHATTER.match(line)]
    return (lines or ["it said nothing"])[-1][:200]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConversionFailed(f"no {path.name} was left ({error.strerror}): run again") from error
