"""Converters and compilers are other people's programs: whatever they do, one line says so and nothing is left."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgeloop.errors import MissingExtra
from edgeloop.release.optimise import child, convert
from edgeloop.release.optimise.convert import (
    ConversionFailed,
    Job,
    compile_edgetpu,
    convert_litert,
    last_line,
)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders of jobs are made."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def compiler(tmp_path: Path, script: str) -> str:
    path = tmp_path / "edgetpu_compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'ERROR: Model not quantized' >&2; exit 1", r"edgetpu_compiler failed \(ERROR: Model not quantized\)"),
        ("exit 3", r"edgetpu_compiler failed \(it said nothing\)"),
        ("exit 0", r"no variant_edgetpu.tflite was left \(No such file or directory\)"),
        ("exec sleep 30", "edgetpu_compiler took more than 1 s"),
    ],
    ids=["says why", "says nothing", "leaves nothing", "hangs"],
)
def test_a_compiler_that_fails_is_said(tmp_path: Path, scratch: Path, script: str, said: str) -> None:
    with pytest.raises(ConversionFailed, match=said):
        compile_edgetpu(compiler(tmp_path, script), b"litert", 1 if "sleep" in script else 60)
    assert list(scratch.iterdir()) == []


def test_a_program_that_does_not_start_is_said(tmp_path: Path) -> None:
    path = tmp_path / "edgetpu_compiler"
    path.write_text("no program")
    with pytest.raises(ConversionFailed, match="edgetpu_compiler does not start"):
        compile_edgetpu(str(path), b"litert")


def test_a_child_over_its_memory_ends_and_is_said(scratch: Path, trained: Path) -> None:
    keras = (trained / "backbone.keras").read_bytes()
    with pytest.raises(ConversionFailed, match=r"converter to int8 failed \(it ended .*want of memory, 64") as raised:
        convert_litert(keras, Job(form="int8", memory_mb=64), np.zeros((1, 71, 71, 3), np.uint8))
    assert "\n" not in str(raised.value)
    assert list(scratch.iterdir()) == []


def test_a_child_ends_by_itself_when_its_time_is_over(
    scratch: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started it may be gone: the parent's own limit is put out of reach."""
    keras = (trained / "backbone.keras").read_bytes()
    real = convert._wait
    monkeypatch.setattr(convert, "_wait", lambda what, command, env, _, why: real(what, command, env, 500, why))
    with pytest.raises(ConversionFailed, match=r"the converter to float16 failed \(it took more than 1 s\)"):
        convert_litert(keras, Job(form="float16", seconds=1))
    assert list(scratch.iterdir()) == []


UNDER_A_BOUND = """
import errno, resource, sys
from edgeloop.release.optimise.child import bounded
most = resource.getrlimit(resource.RLIMIT_DATA)
try:
    with bounded(1 << int(sys.argv[1])):
        bytearray(1 << 33)
except (OSError, MemoryError) as error:
    print(type(error).__name__, getattr(error, "errno", None) == errno.ENOMEM)
print(resource.getrlimit(resource.RLIMIT_DATA) == most, len(bytearray(1 << 26)))
"""


@pytest.mark.parametrize(("bits", "said"), [(20, "OSError True"), (32, "MemoryError False")], ids=["before", "within"])
def test_a_bound_on_memory_is_lifted_before_the_error_leaves(bits: int, said: str) -> None:
    """Python that lacks memory says anything of an error, or nothing."""
    done = subprocess.run([sys.executable, "-c", UNDER_A_BOUND, str(bits)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [said, f"True {1 << 26}"]


class ResourceExhaustedError(Exception):
    """TensorFlow's name for it."""


def chained(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "no"), True),
        (OSError(errno.ENOENT, "no"), False),
        (ResourceExhaustedError(), True),
        (ValueError("no"), False),
        (chained(MissingExtra("tensorflow", "train"), chained(ImportError("x"), MemoryError())), True),
        (chained(SystemError("no result"), ValueError("no")), False),
    ],
    ids=repr,
)
def test_a_child_knows_a_want_of_memory_by_its_kind(error: Exception, known: bool) -> None:
    assert child.starved(error) is known


def test_errors_that_go_in_a_circle_are_looked_at_once() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not child.starved(one)


@pytest.mark.parametrize(
    ("code", "said", "why"),
    [
        (-14, "", "it took more than 600 s"),
        (-9, "it said nothing", "it ended (signal 9) for want of memory, 6000 MB is what it may take"),
        (1, "MemoryError", "it ended for want of memory, 6000 MB is what it may take"),
        (1, "OSError: [Errno 12] Cannot allocate memory", "it ended for want of memory, 6000 MB is what it may take"),
        (12, "Exception ignored on building", "it ended for want of memory, 6000 MB is what it may take"),
        (1, "ValueError: no", "ValueError: no; is the train extra installed?"),
    ],
)
def test_why_a_child_ended(code: int, said: str, why: str) -> None:
    assert convert._why(Job(form="int8"), code, said) == why


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (127, "cannot allocate memory for thread-local data: ABORT"),
        (1, "RuntimeError: Resource temporarily unavailable"),
        (1, "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating tensor with shape[9]"),
    ],
)
def test_memory_is_missed_in_many_words(code: int, said: str) -> None:
    assert convert._why(Job(form="int8"), code, said) == "it ended for want of memory, 6000 MB is what it may take"


def test_the_last_line_is_what_the_program_said_last() -> None:
    log = "Traceback\nValueError: no\n\nI0000 00:00:17 x.cc:1] greeting\nWARNING: All log messages\n"
    assert last_line(log) == "ValueError: no"
    assert last_line("\n") == "it said nothing"
    assert len(last_line("x" * 1000)) == 200
