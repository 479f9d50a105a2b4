"""Keeps the parts of a stack running: in order up, again when one dies, in reverse order down.

One thread does all of it, because a child is ended by the kernel when the *thread* that started it ends: so
nothing outlives the supervisor, even one that was killed. Nothing here knows what the parts are.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Literal

from edgeloop.errors import EdgeloopError
from edgeloop.stack.logs import last_line, open_log
from edgeloop.stack.parts import Part
from edgeloop.stack.processes import Process, signal_group, spawn, started_at

State = Literal[
    "waiting",
    "starting",
    "healthy",
    "restarting",
    "gave up",
    "done",
    "stopping",
    "stopped",
]
MAX_DEATHS = 5
DEATH_WINDOW = 60.0
# Seconds between two looks at the parts: while they start, once they run, and while they stop.
_START_TICK, _TICK, _STOP_TICK = 0.1, 0.5, 0.05


class PartFailed(EdgeloopError):
    """A part of the stack did not start, or died too often."""

    def __init__(self, part: str, what: str, log: Path) -> None:
        said = last_line(log) or "nothing"
        super().__init__(f"{part} {what}; the last line of {log} is: {said}: mend that and run  edgeloop up  again")
        self.part = part


class Interrupted(EdgeloopError):
    """The stack was told to stop before it had started."""

    def __init__(self) -> None:
        super().__init__("the stack was stopped before it had started: run  edgeloop up  again")


@dataclass(frozen=True)
class Event:
    """Something happened to a part."""

    part: str
    state: State
    detail: str = ""
    """Address of a healthy part, exit status of a dead one."""
    seconds: float = 0.0
    """Since the part was started."""


Progress = Callable[[Event], None]


def back_off(deaths: Sequence[float], now: float) -> float | None:
    """Seconds to wait before a part that died at ``deaths`` (monotonic) is started again; None: give up.

    The first death in a window costs no wait, every further one twice the wait before, from half a second.
    """
    recent = sum(1 for death in deaths if now - death < DEATH_WINDOW)
    if recent >= MAX_DEATHS:
        return None
    return 0.0 if recent <= 1 else 0.25 * 2.0 ** (recent - 1)


@dataclass
class _Child:
    """A part and its life so far."""

    part: Part
    log: Path
    state: State = "waiting"
    process: Popen[bytes] | None = None
    identity: Process | None = None
    since: float = 0.0
    again_at: float = 0.0
    deaths: list[float] = field(default_factory=list)
    missing: str = "it was not started"
    signalled: float | None = None

    @property
    def settled(self) -> bool:
        return self.state in {"healthy", "done"}

    @property
    def running(self) -> bool:
        # Without reaping it: until a dead leader is waited for, the number of its group is not given away.
        return self.process is not None and self.identity is not None and self.identity.alive


class Supervisor:
    """Runs parts until told to stop. Every method may be called from any thread.

    Args:
        parts: what to run; a part's ``needs`` are among them.
        logs: directory of the parts' log files.
        progress: called from the supervisor's thread with every change.
        before_start: called with a part's name just before it is started.
        changed: called with the running processes by part whenever one came or went.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        logs: Path,
        progress: Progress | None = None,
        before_start: Callable[[str], None] | None = None,
        changed: Callable[[dict[str, Process]], None] | None = None,
    ) -> None:
        self._children = {part.name: _Child(part, logs / f"{part.name}.log") for part in parts}
        self._progress: Progress = progress or (lambda event: None)
        self._before_start = before_start or (lambda name: None)
        self._changed = changed or (lambda processes: None)
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin starting the parts; returns at once."""
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait until every part is healthy.

        Raises:
            PartFailed: one is not and will not be; everything has been stopped again.
            Interrupted: :meth:`stop` was called first.
        """
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self) -> None:
        """Ask for the end; returns at once."""
        self._stop.set()

    def kill(self) -> None:
        """Ask for the end without waiting for any part to finish its work; returns at once."""
        self._hurry.set()
        self._stop.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it was reached."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def failure(self) -> BaseException | None:
        """Why the supervisor stopped by itself; None while it runs or when it was told to."""
        return self._failure

    def processes(self) -> dict[str, Process]:
        """The running process of each part."""
        children = self._children.items()
        return {name: child.identity for name, child in children if child.identity and child.running}

    def states(self) -> dict[str, State]:
        """The state of each part."""
        return {name: child.state for name, child in self._children.items()}

    def check(self) -> dict[str, str]:
        """What is wrong now, by part; empty when every part answers."""
        found = {name: _wrong(child) for name, child in self._children.items()}
        return {name: wrong for name, wrong in found.items() if wrong}

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._step()
                self._stop.wait(_TICK if self._ready.is_set() else _START_TICK)
            if not self._ready.is_set():
                self._failure = Interrupted()
        except BaseException as error:
            self._failure = error
        finally:
            self._stop_all()
            self._ready.set()

    def _step(self) -> None:
        for child in self._children.values():
            self._advance(child)
        if all(child.settled for child in self._children.values()):
            self._ready.set()

    def _advance(self, child: _Child) -> None:
        if self._due(child):
            self._launch(child)
        elif child.state in {"starting", "healthy"} and not child.running:
            self._ended(child)
        elif child.state == "starting":
            self._look(child)

    def _due(self, child: _Child) -> bool:
        if child.state == "waiting":
            return all(self._children[need].settled for need in child.part.needs)
        return child.state == "restarting" and time.monotonic() >= child.again_at

    def _launch(self, child: _Child) -> None:
        part = child.part
        self._before_start(part.name)
        child.since = time.monotonic()
        self._to(child, "starting")
        try:
            with open_log(child.log) as log:
                child.process = spawn(part.command, part.env, part.cwd, log, part.stop_signal)
        except OSError as error:
            if self._ready.is_set():
                self._bury(child, f"cannot be started ({error})")
                return
            raise PartFailed(part.name, f"cannot be started ({error})", child.log) from error
        child.identity = Process(child.process.pid, started_at(child.process.pid) or "")
        self._changed(self.processes())

    def _look(self, child: _Child) -> None:
        if child.part.once:
            missing: str | None = "it has not ended"
        else:
            missing = child.part.health()
        if missing is None:
            self._to(child, "healthy", child.part.address)
        elif time.monotonic() - child.since > child.part.deadline:
            self._late(child, missing)
        child.missing = missing or ""

    def _late(self, child: _Child, missing: str) -> None:
        what = f"was not healthy after {child.part.deadline:g} s ({missing})"
        if not self._ready.is_set():
            raise PartFailed(child.part.name, what, child.log)
        # Later it counts as a death: the part is ended and started again like a dead one.
        signal_group(_pid(child), signal.SIGKILL)

    def _ended(self, child: _Child) -> None:
        status = self._sweep(child)
        self._changed(self.processes())
        if child.part.once and status == 0:
            self._to(child, "done")
        elif not self._ready.is_set() or child.part.once:
            raise PartFailed(
                child.part.name,
                f"ended with {_status(status)} while starting",
                child.log,
            )
        else:
            self._bury(child, f"ended with {_status(status)}")

    def _bury(self, child: _Child, how: str) -> None:
        now = time.monotonic()
        child.deaths = [death for death in child.deaths if now - death < DEATH_WINDOW] + [now]
        wait = back_off(child.deaths, now) if child.part.restart else None
        child.missing = how
        if wait is None:
            times = f"died {len(child.deaths)} times in {DEATH_WINDOW:g} s, " if child.part.restart else ""
            child.missing = f"{how} ({times}see {child.log})"
            self._to(child, "gave up", child.missing)
            return
        child.again_at = now + wait
        self._to(child, "restarting", how)

    def _stop_all(self) -> None:
        left = {name: child for name, child in self._children.items() if child.process is not None}
        while left:
            for name, child in list(left.items()):
                needed = any(name in other.part.needs for other in left.values())
                if self._stopped(child, may_signal=not needed or self._hurry.is_set()):
                    del left[name]
            time.sleep(_STOP_TICK)
        with contextlib.suppress(Exception):
            self._changed({})

    def _stopped(self, child: _Child, may_signal: bool) -> bool:
        now = time.monotonic()
        if not child.running:
            self._sweep(child)
            if child.state != "done":
                self._to(child, "stopped")
            return True
        if not may_signal:
            return False
        if child.signalled is None:
            child.signalled = now
            self._to(child, "stopping")
            signal_group(_pid(child), child.part.stop_signal)
        elif now - child.signalled > child.part.grace or self._hurry.is_set():
            signal_group(_pid(child), signal.SIGKILL)
        return False

    def _sweep(self, child: _Child) -> int:
        # First end what the dead leader left in its group, then give its number back.
        if child.process is None:
            return 0
        signal_group(child.process.pid, signal.SIGKILL)
        status = child.process.wait()
        child.process = None
        return status

    def _to(self, child: _Child, state: State, detail: str = "") -> None:
        child.state = state
        seconds = time.monotonic() - child.since if child.since else 0.0
        event = Event(child.part.name, state, detail, seconds)
        if not self._stop.is_set():
            self._progress(event)
            return
        # Whoever watches must not keep the parts from being stopped.
        with contextlib.suppress(Exception):
            self._progress(event)


def _pid(child: _Child) -> int:
    assert child.process is not None
    return child.process.pid


def _wrong(child: _Child) -> str | None:
    if child.state == "done":
        return None
    if not child.running:
        return f"{child.state}: {child.missing}"
    return child.part.health()


def _status(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"
