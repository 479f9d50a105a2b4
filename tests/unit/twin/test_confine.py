"""What is confined keeps to its cores, does not live with more memory than it may, and does not outlive its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop.twin.confine import Cores, UnusableCgroup, asking_from, confined, divide, high_water
from tests.conftest import ROOT

ONE = Cores((sorted(os.sched_getaffinity(0))[0],), (sorted(os.sched_getaffinity(0))[-1],))


def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_it_has_the_cores_that_it_was_given(tmp_path: Path) -> None:
    code = "import os; print(sorted(os.sched_getaffinity(0)), flush=True); import time; time.sleep(60)"
    with confined(python(code), ONE, 200, tmp_path / "log") as cell:
        until(lambda: (tmp_path / "log").read_text(), "its cores")
        assert (tmp_path / "log").read_text().strip() == str(list(ONE.node))
        assert (cell.within.how, cell.within.cores, cell.within.memory_mb) == ("watch", 1, 200)
    assert cell.code == -signal.SIGTERM


def test_what_takes_more_memory_than_it_may_is_ended(tmp_path: Path) -> None:
    with confined(python("b = bytearray(300 << 20); import time; time.sleep(60)"), ONE, 100, tmp_path / "log") as cell:
        until(lambda: cell.code is not None, "its end")
        assert cell.over_memory and cell.code == -signal.SIGKILL
    assert (cell.peak_mb() or 0) > 100


def test_memory_that_was_given_back_still_counts(tmp_path: Path) -> None:
    code = "b = bytearray(80 << 20); del b; print('done', flush=True); import time; time.sleep(60)"
    with confined(python(code), ONE, 500, tmp_path / "log") as cell:
        until(lambda: (tmp_path / "log").read_text(), "its word")
        assert 80 < (cell.peak_mb() or 0) < 200
        assert not cell.over_memory and cell.code is None


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from edgeloop.twin.confine import Cores, confined
with confined([sys.executable, "-c", "import time; time.sleep(60)"], Cores(({ONE.node[0]},), (0,)), 200,
              Path({str(tmp_path / "log")!r})) as cell:
    print(cell.pid, flush=True)
    time.sleep(60)
"""
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    until(lambda: b"edgeloop.twin.cell" not in Path(f"/proc/{child}/cmdline").read_bytes(), "the child, past its cell")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: _is_gone(child), "the end of the child")


def _is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def test_the_node_comes_before_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5})
    assert divide(1) == Cores((5,), (2, 3)) and not divide(1).shared
    assert divide(3) == Cores((2, 3, 5), (2, 3, 5)) and divide(3).shared
    assert divide(8).node == (2, 3, 5)


def test_who_asks_goes_back_to_all_cores() -> None:
    before = os.sched_getaffinity(0)
    with asking_from(Cores((0,), ONE.sender)):
        assert os.sched_getaffinity(0) == set(ONE.sender)
    assert os.sched_getaffinity(0) == before


def test_a_process_that_is_gone_has_no_peak() -> None:
    assert high_water(2**22 - 1) is None
    assert (high_water(os.getpid()) or 0) > 1 << 20


# --- control groups: a folder that looks like one, because few machines hand one to their tests


def group(folder: Path, hands_on: str = "cpu memory pids") -> Path:
    made = folder / "group"
    made.mkdir()
    (made / "cgroup.subtree_control").write_text(hands_on + "\n")
    return made


def test_a_control_group_gets_the_bounds_and_the_process(tmp_path: Path) -> None:
    parent = group(tmp_path)
    with confined(python("import time; time.sleep(60)"), ONE, 300, tmp_path / "log", cgroup=parent) as cell:
        (made,) = parent.glob("twin-*")
        until((made / "cgroup.procs").exists, "the process in its group")
        until(lambda: (made / "cgroup.procs").read_text() == str(cell.pid), "its number")
        assert (made / "memory.max").read_text() == str(300 << 20)
        assert (made / "cpu.max").read_text() == "100000 100000"
        assert cell.within.how == "cgroup" and not cell.over_memory
        (made / "memory.events").write_text("low 0\noom 1\noom_kill 1\noom_group_kill 0\n")
        assert cell.over_memory


@pytest.mark.parametrize("hands_on", [None, "cpu pids"], ids=["no group", "no memory"])
def test_a_folder_that_confines_nothing_is_refused(tmp_path: Path, hands_on: str | None) -> None:
    parent = group(tmp_path, hands_on) if hands_on else tmp_path
    with (
        pytest.raises(UnusableCgroup, match=r"EDGELOOP_TWIN_CGROUP .*delegated to you"),
        confined(python("pass"), ONE, 300, tmp_path / "log", cgroup=parent),
    ):
        pass
    assert list(parent.glob("twin-*")) == []
