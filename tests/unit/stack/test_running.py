"""A whole stack of tiny parts: one per home, ended by signals, cleaned up after even when killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeloop.stack.control import stop_running
from edgeloop.stack.parts import Part
from edgeloop.stack.plan import StackPlan
from edgeloop.stack.processes import MARK, Process, started_at, wait_gone
from edgeloop.stack.record import AlreadyRunning, read_record
from edgeloop.stack.running import running_stack
from edgeloop.stack.supervisor import PartFailed
from tests.unit.stack.children import part

# Run in a process of its own, so that it can be killed.
PROGRAM = """
import sys
from pathlib import Path
from edgeloop.stack.running import run_foreground
from tests.unit.stack.test_running import build, plan
home = Path(sys.argv[1])
run_foreground(plan(home), ready=lambda stack: (home / "up").touch(), build=build)
print("ended well")
"""
# Like a flow run: in a session of its own, which no signal to the group of its parent reaches.
STARTS_ANOTHER = (
    "import os,pathlib,signal,subprocess,sys\n"
    "c=subprocess.Popen([sys.executable,'-c','import signal; signal.pause()'],start_new_session=True)\n"
    "pathlib.Path('flow-run').write_text(str(c.pid))\npathlib.Path('runner.ready').touch()\nsignal.pause()"
)


def plan(home: Path) -> StackPlan:
    return StackPlan(home=home, rooms=home, services=[], nodes=0, free_ports=True)


def build(plan: StackPlan, ports: Mapping[str, int], mark: Mapping[str, str]) -> list[Part]:
    assert set(ports) == {"prefect", "mlflow", "broker"}
    server = part("prefect", plan.home, env=mark)
    return [server, part("runner", plan.home, STARTS_ANOTHER, mark, needs=("prefect",))]


@contextmanager
def foreground(home: Path) -> Iterator[subprocess.Popen[str]]:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", PROGRAM, str(home)]
    child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: (home / "up").exists() or child.poll() is not None)
        assert child.poll() is None, child.communicate()
        yield child
    finally:
        child.kill()
        child.communicate()
        stop_running(home)


def until(wanted: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.02)


def flow_run(home: Path) -> Process:
    pid = int((home / "flow-run").read_text())
    return Process(pid, started_at(pid) or "")


def test_a_stack_says_where_it_is_and_forgets_it_at_the_end(tmp_path: Path) -> None:
    with running_stack(plan(tmp_path), build=build) as stack:
        record = read_record(tmp_path)
        assert record is not None
        assert record.supervisor.pid == os.getpid()
        assert {name: process.pid for name, process in record.parts.items()} == stack.pids()
        assert record.addresses == stack.addresses
        settings = stack.settings()
        assert (settings.prefect, settings.mlflow) == (
            stack.addresses["prefect"],
            stack.addresses["mlflow"],
        )
        assert settings.store_url == str(tmp_path / "store")
        assert stack.check() == {}
        other = flow_run(tmp_path)
        assert other.alive
        ended = [*record.parts.values(), other]
    assert wait_gone(ended, 60) == []
    assert read_record(tmp_path) is None
    assert (tmp_path / "store").is_dir()


def test_settings_of_a_stack_stand_above_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_MLFLOW", "http://elsewhere:1")
    with running_stack(plan(tmp_path), build=build) as stack:
        assert stack.settings().mlflow == stack.addresses["mlflow"]


def test_one_stack_per_home(tmp_path: Path) -> None:
    with running_stack(plan(tmp_path), build=build) as stack:
        with pytest.raises(AlreadyRunning), running_stack(plan(tmp_path), build=build):
            pass
        assert stack.check() == {}


def test_a_stack_that_cannot_start_frees_its_home(tmp_path: Path) -> None:
    def broken(plan: StackPlan, ports: Mapping[str, int], mark: Mapping[str, str]) -> list[Part]:
        return [part("prefect", plan.home, "raise SystemExit('port in use')")]

    with (
        pytest.raises(PartFailed, match="port in use"),
        running_stack(plan(tmp_path), build=broken),
    ):
        pass
    assert read_record(tmp_path) is None
    with running_stack(plan(tmp_path), build=build) as stack:
        assert stack.check() == {}


def test_an_error_in_the_block_stops_the_stack(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        running_stack(plan(tmp_path), build=build) as stack,
    ):
        processes = list(stack.supervisor.processes().values())
        raise ZeroDivisionError
    assert wait_gone(processes, 60) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(tmp_path: Path, number: int) -> None:
    with foreground(tmp_path) as child:
        record = read_record(tmp_path)
        assert record is not None
        ended = [*record.parts.values(), flow_run(tmp_path)]
        child.send_signal(number)
        out, _ = child.communicate(timeout=60)
        assert (child.returncode, out) == (0, "ended well\n")
        assert wait_gone(ended, 60) == []
        assert read_record(tmp_path) is None


def test_parts_die_with_a_killed_supervisor_and_the_next_one_sweeps(
    tmp_path: Path,
) -> None:
    with foreground(tmp_path) as child:
        record = read_record(tmp_path)
        assert record is not None
        child.kill()
        child.wait()
        # The kernel ends what the supervisor started; what those started is swept by the next supervisor.
        assert wait_gone(record.parts.values(), 60) == []
        other = flow_run(tmp_path)
        assert other.alive
        (tmp_path / "prefect.ready").unlink()
        with running_stack(plan(tmp_path), build=build) as stack:
            assert stack.check() == {}
            assert wait_gone([other], 60) == []


def test_down_stops_a_running_stack(tmp_path: Path) -> None:
    with foreground(tmp_path) as child:
        assert stop_running(tmp_path) == ["prefect", "runner"]
        out, _ = child.communicate(timeout=60)
        assert (child.returncode, out) == (0, "ended well\n")
    assert stop_running(tmp_path) == []


def test_down_kills_a_supervisor_that_does_not_answer(tmp_path: Path) -> None:
    with foreground(tmp_path) as child:
        record = read_record(tmp_path)
        assert record is not None
        child.send_signal(signal.SIGSTOP)
        assert stop_running(tmp_path, timeout=0.3) == ["prefect", "runner"]
        assert child.wait(60) == -signal.SIGKILL
        assert wait_gone([*record.parts.values(), flow_run(tmp_path)], 60) == []
        assert read_record(tmp_path) is None


def test_down_leaves_a_stranger_with_the_same_pid_alone(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as stranger:
        parts = {"mlflow": {"pid": stranger.pid, "pgid": stranger.pid, "started": "boot:1"}}
        supervisor = {"pid": stranger.pid, "started": "boot:1"}
        value = {
            "version": 1,
            "supervisor": supervisor,
            "life": MARK,
            "addresses": {},
            "parts": parts,
        }
        (tmp_path / "stack.json").write_text(json.dumps(value))
        assert stop_running(tmp_path) == []
        assert stranger.poll() is None
        stranger.kill()
