"""Processes by more than their number: a pid alone may belong to someone else by the time it is signalled.

Every process of a stack is known by pid *and* start time, leads a group of its own, and carries the stack's
mark in its environment, so that what a killed supervisor left is found again and nothing else is touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MARK = "EDGELOOP_STACK_LIFE"
"""Environment variable that every process of a stack inherits; its value is one life of one stack."""

_PROC = sys.platform.startswith("linux")

# The signal on the parent's death must be asked for by the child itself: doing it between fork and exec of a
# process with threads may deadlock, so a tiny interpreter asks and then becomes the program.
_BECOME = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1,int(sys.argv[1]))\n"
    "os.getppid()==int(sys.argv[2]) or sys.exit('the supervisor is gone')\n"
    "os.execvpe(sys.argv[3],sys.argv[3:],os.environ)\n"
)


@dataclass(frozen=True)
class Process:
    """One process, recognisable after its pid was given to another."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return started_at(self.pid) == self.started


def started_at(pid: int) -> str | None:
    """When process ``pid`` was started, as text that never is the same for two processes; None when gone."""
    if not _PROC:
        return _started_by_ps(pid)
    fields = _stat(pid)
    if fields is None or (fields[0] in "ZX" and not _has_threads(pid)):
        return None
    return f"{_boot()}:{fields[19]}"


def _has_threads(pid: int) -> bool:
    """Whether a dead process has threads that have not ended yet: they still hold its ports and locks."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def _started_by_ps(pid: int) -> str | None:
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def this_process() -> Process:
    """The running process."""
    return Process(os.getpid(), started_at(os.getpid()) or "")


def _stat(pid: int) -> list[str] | None:
    # Fields after the command's name, which may hold spaces and brackets: [0] is the state, [19] the start.
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def spawn(
    command: Iterable[str],
    env: Mapping[str, str],
    cwd: Path,
    log: IO[bytes],
    death_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start ``command`` as the leader of its own group, its output in ``log``.

    On Linux it gets ``death_signal`` when the calling *thread* ends, even by SIGKILL of the process: call it
    from a thread that lives as long as the child should.
    """
    words = list(command)
    if _PROC:
        words = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _BECOME,
            str(int(death_signal)),
            str(os.getpid()),
            *words,
        ]
    return subprocess.Popen(
        words,
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def signal_group(pgid: int, number: int) -> None:
    """Send a signal to a process group; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, number)


def marked(life: str) -> list[Process]:
    """Every running process with this stack's mark, except the calling one. Empty where there is no /proc."""
    if not _PROC or not life:
        return []
    wanted = f"{MARK}={life}".encode()
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    found = ((pid, started_at(pid)) for pid in pids if pid != os.getpid() and wanted in _environment(pid))
    return [Process(pid, started) for pid, started in found if started is not None]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def end(processes: Iterable[Process], grace: float) -> None:
    """End processes: SIGTERM, and SIGKILL for those that are still there after ``grace`` seconds."""
    left = [process for process in processes if process.alive]
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in left:
            _signal(process, number)
        left = wait_gone(left, seconds)
        if not left:
            return


def wait_gone(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Wait until all are gone or ``seconds`` are over; return those still there."""
    until = time.monotonic() + seconds
    while (left := [process for process in processes if process.alive]) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def _signal(process: Process, number: int) -> None:
    if process.alive:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)
