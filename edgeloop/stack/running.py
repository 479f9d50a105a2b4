"""A stack that runs: ports, processes and record together, for ``edgeloop up``, the demo and the tests."""

from __future__ import annotations

import contextlib
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from edgeloop.settings import Settings, load_settings, make_home
from edgeloop.stack.parts import Part, build_parts
from edgeloop.stack.plan import StackPlan, build_addresses
from edgeloop.stack.ports import HeldPorts, choose_ports
from edgeloop.stack.processes import MARK, Process, end, marked, this_process
from edgeloop.stack.record import (
    StackRecord,
    end_leftovers,
    locked,
    read_record,
    remove_record,
    write_record,
)
from edgeloop.stack.supervisor import Interrupted, Progress, Supervisor

Build = Callable[[StackPlan, Mapping[str, int], Mapping[str, str]], list[Part]]


@dataclass(frozen=True)
class RunningStack:
    """Handle of a running stack."""

    home: Path
    addresses: dict[str, str]
    """``prefect`` (API), ``prefect_ui``, ``mlflow``, ``broker``, ``store`` and each node by its name."""
    supervisor: Supervisor
    rooms: Path

    def settings(self) -> Settings:
        """Settings that point at this stack, whatever the environment says."""
        found = {name: self.addresses[name] for name in ("store", "broker", "mlflow", "prefect")}
        return load_settings(self.home).model_copy(update={**found, "home": self.home, "rooms": self.rooms})

    def pids(self) -> dict[str, int]:
        """Pid of each part that runs."""
        return {name: process.pid for name, process in self.supervisor.processes().items()}

    def check(self) -> dict[str, str]:
        """What is wrong now, by part; empty when every part answers."""
        return self.supervisor.check()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the stack has ended; whether it has. Raises what ended it when nobody asked for it."""
        ended = self.supervisor.join(timeout)
        if ended and self.supervisor.failure is not None:
            raise self.supervisor.failure
        return ended


@contextlib.contextmanager
def running_stack(
    plan: StackPlan,
    progress: Progress | None = None,
    started: Callable[[Supervisor], None] | None = None,
    build: Build = build_parts,
) -> Iterator[RunningStack]:
    """Run a stack for the length of a ``with`` block, which is entered when every part is healthy.

    Args:
        progress: told of every change, from another thread.
        started: gets the supervisor before it starts anything, for a caller that handles signals.
        build: makes the parts of plan, ports and mark.

    Raises:
        AlreadyRunning: another supervisor has this home.
        PortTaken: another program has a port.
        NoRooms, NoServices, MissingExtra: the plan cannot be carried out here.
        PartFailed: a part does not become healthy; everything is stopped again.
        Interrupted: the supervisor was stopped meanwhile.
    """
    plan = replace(plan, home=make_home(plan.home), rooms=plan.rooms.absolute())
    with locked(plan.home):
        _clear(plan.home)
        with choose_ports(plan.listening, plan.home, plan.ports, plan.free_ports) as held:
            life = uuid.uuid4().hex
            stack = _prepare(plan, held, life, progress, build)
            try:
                if started:
                    started(stack.supervisor)
                stack.supervisor.start()
                stack.supervisor.wait_ready()
                yield stack
            finally:
                _end(stack, life)


def _clear(home: Path) -> None:
    # The lock is ours, so whoever wrote this record is gone.
    record = read_record(home)
    if record is not None:
        end_leftovers(record)
    remove_record(home)


def _prepare(plan: StackPlan, held: HeldPorts, life: str, progress: Progress | None, build: Build) -> RunningStack:
    addresses = build_addresses(plan, held.numbers)
    parts = build(plan, held.numbers, {MARK: life})
    if "://" not in plan.store:
        Path(plan.store).mkdir(parents=True, exist_ok=True)
    me = this_process()

    def changed(processes: dict[str, Process]) -> None:
        write_record(plan.home, StackRecord(me, life, addresses, processes))

    supervisor = Supervisor(parts, plan.home / "logs", progress, held.release, changed)
    return RunningStack(plan.home, addresses, supervisor, plan.rooms)


def _end(stack: RunningStack, life: str) -> None:
    stack.supervisor.stop()
    stack.supervisor.join()
    # Flow runs lead sessions of their own, where a signal to the runner's group does not reach them.
    end(marked(life), grace=2.0)
    remove_record(stack.home)


def run_foreground(
    plan: StackPlan,
    progress: Progress | None = None,
    ready: Callable[[RunningStack], None] | None = None,
    build: Build = build_parts,
) -> None:
    """Run a stack until SIGINT or SIGTERM; a second one kills the parts at once. For the main thread only.

    Args:
        ready: called once, when every part is healthy.

    Raises:
        As :func:`running_stack`, less Interrupted.
    """
    asked = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        for supervisor in supervisors:
            supervisor.kill() if asked.is_set() else supervisor.stop()
        asked.set()

    supervisors: list[Supervisor] = []
    with _signals(handle):
        try:
            with running_stack(plan, progress, supervisors.append, build) as stack:
                if ready:
                    ready(stack)
                # A bare wait for a thread cannot be interrupted by a signal handler everywhere.
                while not stack.wait(timeout=1.0):
                    pass
        except Interrupted:
            if not asked.is_set():
                raise


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
