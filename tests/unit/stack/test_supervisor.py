"""Parts come up in order, come back when they die, and go down in reverse order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.stack.parts import Part
from edgeloop.stack.processes import Process, started_at, wait_gone
from edgeloop.stack.supervisor import (
    DEATH_WINDOW,
    MAX_DEATHS,
    Event,
    Interrupted,
    PartFailed,
    Supervisor,
    back_off,
)
from tests.unit.stack.children import FOREVER, part


class Watcher:
    """Collects events and waits for one."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait(self, wanted: Callable[[list[Event]], bool], seconds: float = 30.0) -> None:
        with self._news:
            assert self._news.wait_for(lambda: wanted(self.events), seconds), self.events

    def order(self, state: str) -> list[str]:
        return [event.part for event in self.events if event.state == state]


@contextmanager
def running(parts: list[Part], logs: Path) -> Iterator[tuple[Supervisor, Watcher]]:
    watcher = Watcher()
    supervisor = Supervisor(parts, logs, watcher)
    supervisor.start()
    try:
        supervisor.wait_ready()
        yield supervisor, watcher
    finally:
        supervisor.stop()
        assert supervisor.join(20)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_order_up_and_down(tmp_path: Path) -> None:
    parts = [
        part("node", tmp_path, needs=("broker", "setup")),
        part("setup", tmp_path, "print('done')", needs=("server",), once=True),
        part("broker", tmp_path),
        part("server", tmp_path),
    ]
    with running(parts, tmp_path) as (supervisor, watcher):
        assert supervisor.check() == {}
        pids = [process.pid for process in supervisor.processes().values()]
        assert len(pids) == 3
        assert supervisor.states()["setup"] == "done"
    healthy = [event.part for event in watcher.events if event.state in {"healthy", "done"}]
    assert healthy.index("server") < healthy.index("setup") < healthy.index("node")
    assert healthy.index("broker") < healthy.index("node")
    assert watcher.order("stopping")[0] == "node"
    assert watcher.order("stopped")[0] == "node"
    assert set(watcher.order("stopped")) == {"node", "broker", "server"}
    assert all(map(gone, pids))


def test_a_killed_part_comes_back_at_once(tmp_path: Path) -> None:
    with running([part("mlflow", tmp_path)], tmp_path) as (supervisor, watcher):
        old = supervisor.processes()["mlflow"].pid
        (tmp_path / "mlflow.ready").unlink()
        os.kill(old, signal.SIGKILL)
        watcher.wait(lambda events: [e.state for e in events].count("healthy") == 2, 60)
        assert supervisor.processes()["mlflow"].pid != old
        died = next(event for event in watcher.events if event.state == "restarting")
        assert "signal 9" in died.detail


def test_a_part_that_always_dies_is_given_up(tmp_path: Path) -> None:
    once = tmp_path / "once"
    code = f"import pathlib,sys\nif pathlib.Path({str(once)!r}).exists(): sys.exit('no disk')\n{FOREVER}"
    dying = part("mlflow", tmp_path, code)
    (tmp_path / "mlflow.ready").touch()
    with running([dying, part("broker", tmp_path)], tmp_path) as (supervisor, watcher):
        os.kill(supervisor.processes()["mlflow"].pid, signal.SIGKILL)
        once.touch()
        watcher.wait(lambda events: any(event.state == "gave up" for event in events))
        assert len(watcher.order("restarting")) == MAX_DEATHS - 1
        wrong = supervisor.check()
        assert set(wrong) == {"mlflow"}
        assert "gave up" in wrong["mlflow"]
        assert "died 5 times in 60 s" in wrong["mlflow"]
        assert str(tmp_path / "mlflow.log") in wrong["mlflow"]


def test_a_part_that_dies_at_start_says_why(tmp_path: Path) -> None:
    failing = part("mlflow", tmp_path, "import sys; print('working'); sys.exit('no such database')")
    with (
        pytest.raises(
            PartFailed,
            match=r"mlflow ended with status 1 .*mlflow.log is: no such database",
        ) as caught,
        running([part("broker", tmp_path), failing], tmp_path),
    ):
        pass
    assert caught.value.part == "mlflow"
    assert "\n" not in str(caught.value)


def test_a_failed_start_leaves_nothing_running(tmp_path: Path) -> None:
    good, late = (
        part("broker", tmp_path),
        part("mlflow", tmp_path, FOREVER, deadline=0.5, needs=("broker",)),
    )
    with (
        pytest.raises(PartFailed, match=r"mlflow was not healthy after 0.5 s \(no mlflow.ready\)"),
        running([good, late], tmp_path),
    ):
        pass
    assert gone(int((tmp_path / "broker.ready").read_text()))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = Part(
        "x",
        ("/no/such/program",),
        dict(os.environ),
        tmp_path,
        lambda: "not up",
        deadline=20,
    )
    with pytest.raises(PartFailed, match="x ended with"), running([missing], tmp_path):
        pass


def test_a_part_that_ignores_the_signal_is_killed_with_its_children(
    tmp_path: Path,
) -> None:
    child = tmp_path / "child"
    code = (
        "import os,pathlib,signal,subprocess,sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"c=subprocess.Popen([sys.executable,'-c',{FOREVER!r}])\npathlib.Path({str(child)!r}).write_text(str(c.pid))\n"
        f"pathlib.Path({str(tmp_path / 'stubborn.ready')!r}).touch()\n{FOREVER}"
    )
    with running([part("stubborn", tmp_path, code, grace=0.3)], tmp_path) as (
        supervisor,
        _,
    ):
        pid = supervisor.processes()["stubborn"].pid
        grandchild = int(child.read_text())
        process = Process(grandchild, started_at(grandchild) or "")
    assert gone(pid)
    assert wait_gone([process], 60) == []


def test_stopped_while_starting(tmp_path: Path) -> None:
    supervisor = Supervisor([part("slow", tmp_path, FOREVER)], tmp_path)
    supervisor.start()
    supervisor.stop()
    with pytest.raises(Interrupted):
        supervisor.wait_ready()
    assert supervisor.processes() == {}


def test_killed_parts_get_no_grace(tmp_path: Path) -> None:
    deaf = "import pathlib,signal\nsignal.signal(15, signal.SIG_IGN)\npathlib.Path('stubborn.ready').touch()"
    code = f"{deaf}\n{FOREVER}"
    supervisor = Supervisor([part("stubborn", tmp_path, code, grace=600.0)], tmp_path)
    supervisor.start()
    supervisor.wait_ready()
    supervisor.stop()
    supervisor.kill()
    assert supervisor.join(60)


def test_a_watcher_that_fails_does_not_keep_parts_running(tmp_path: Path) -> None:
    def refuse(event: Event) -> None:
        if event.state in {"stopping", "stopped"}:
            raise ValueError("cannot show it")

    supervisor = Supervisor([part("broker", tmp_path)], tmp_path, refuse)
    supervisor.start()
    supervisor.wait_ready()
    pid = supervisor.processes()["broker"].pid
    supervisor.stop()
    assert supervisor.join(60)
    assert gone(pid)


@given(st.lists(st.floats(0, 300), max_size=12), st.floats(0, 300))
def test_back_off_grows_with_recent_deaths_only(deaths: list[float], now: float) -> None:
    past = [death for death in deaths if death <= now]
    recent = [death for death in past if now - death < DEATH_WINDOW]
    wait = back_off(past, now)
    assert wait == back_off(recent, now)
    assert (wait is None) == (len(recent) >= MAX_DEATHS)
    longer = back_off([*past, now], now)
    assert wait is not None or longer is None
    assert longer is None or wait is None or longer >= wait


def test_the_first_restart_is_immediate() -> None:
    assert [back_off([0.0] * count, 1.0) for count in (1, 2, 3, 4, 5)] == [
        0.0,
        0.5,
        1.0,
        2.0,
        None,
    ]
