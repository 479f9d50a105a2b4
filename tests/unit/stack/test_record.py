"""The record is read back as written, and what it names is only touched when it is the same process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.stack.processes import MARK, Process, marked, started_at, this_process, wait_gone
from edgeloop.stack.record import (
    AlreadyRunning,
    StackRecord,
    end_leftovers,
    locked,
    read_record,
    record_path,
    remove_record,
    write_record,
)
from tests.unit.stack.children import FOREVER

#: Unlike that of the same tests elsewhere on this machine.
LIFE = f"life-of-{uuid4().hex}"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", FOREVER]
    child = subprocess.Popen(command, env={**os.environ, MARK: LIFE}, start_new_session=True)
    yield child
    child.kill()
    child.wait()


def identity(child: subprocess.Popen[bytes]) -> Process:
    return Process(child.pid, started_at(child.pid) or "")


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
processes = st.builds(Process, st.integers(1, 2**31), st.text(st.characters(codec="utf-8"), max_size=20))


@given(
    supervisor=processes,
    life=names,
    addresses=st.dictionaries(names, names, max_size=4),
    parts=st.dictionaries(names, processes, max_size=4),
)
def test_a_record_is_read_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    supervisor: Process,
    life: str,
    addresses: dict[str, str],
    parts: dict[str, Process],
) -> None:
    home = tmp_path_factory.getbasetemp()
    record = StackRecord(supervisor, life, addresses, parts)
    write_record(home, record)
    assert read_record(home) == record


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"supervisor": 1}', '{"supervisor": {"pid": 1, "started": ""}}'],
)
def test_a_broken_record_counts_as_none(tmp_path: Path, text: str) -> None:
    record_path(tmp_path).write_text(text)
    assert read_record(tmp_path) is None


def test_nothing_lies_beside_the_record(tmp_path: Path) -> None:
    write_record(tmp_path, StackRecord(this_process(), "x", {}))
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]
    remove_record(tmp_path)
    remove_record(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_home_has_one_supervisor(tmp_path: Path) -> None:
    write_record(tmp_path, StackRecord(this_process(), "x", {}))
    with (
        locked(tmp_path),
        pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}.*edgeloop down"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass


def test_a_left_over_part_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    record = StackRecord(Process(1, "gone"), "", {}, {"mlflow": identity(sleeper)})
    assert end_leftovers(record) == ["mlflow"]
    assert sleeper.wait(60) != 0


def test_a_pid_that_was_given_away_is_left_alone(
    sleeper: subprocess.Popen[bytes],
) -> None:
    record = StackRecord(
        Process(1, "gone"),
        "another life",
        {},
        {"mlflow": Process(sleeper.pid, "boot:1")},
    )
    assert end_leftovers(record) == []
    assert sleeper.poll() is None


def test_what_a_part_started_itself_is_found_by_its_mark(
    sleeper: subprocess.Popen[bytes],
) -> None:
    deadline = time.monotonic() + 60
    while not marked(LIFE):  # its environment can be read a moment after it was started
        assert time.monotonic() < deadline
    assert end_leftovers(StackRecord(Process(1, "gone"), LIFE, {})) == ["other"]
    assert sleeper.wait(60) != 0


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = identity(child)
    assert wait_gone([process], 60) == []
    child.wait()
