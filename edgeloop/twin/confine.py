"""Runs a process within the cores and the memory of a profile, and knows afterwards what it took.

Where a control group (version 2) was delegated, the kernel holds it there. Everywhere else the process is bound to
cores, and ended as soon as the most resident memory that it ever held (``VmHWM``) is over the limit: a moment late, but
a process that was over it does not pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from edgeloop.errors import BadInput
from edgeloop.twin.records import Confinement

_MIB = 1024 * 1024
_LOOK_SECONDS = 0.02
_END_SECONDS = 15.0
_PERIOD = 100_000


class UnusableCgroup(BadInput):
    """The control group that was named is none in which processes could be confined."""


@dataclass(frozen=True)
class Cores:
    """Cores by number: those of the node, and those of who asks it."""

    node: tuple[int, ...]
    sender: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether both run on the same."""
        return not set(self.node).isdisjoint(self.sender)


def divide(wanted: int) -> Cores:
    """Give the node ``wanted`` of the cores that this process may use, and the others to who asks; one stays for the
    node in any case, and where none is left both share."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    node = tuple(usable[-wanted:])
    return Cores(node, tuple(core for core in usable if core not in node) or tuple(usable))


class Confined:
    """A process that runs within bounds."""

    def __init__(self, process: subprocess.Popen[bytes], within: Confinement, group: Path | None) -> None:
        self._process = process
        self._group = group
        self._peak = 0
        self._over = False
        self._ended = threading.Event()
        self.within = within
        self._watch = threading.Thread(target=self._look_on, name="twin-memory", daemon=True)
        self._watch.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Exit status; None while it runs."""
        return self._process.poll()

    @property
    def over_memory(self) -> bool:
        """Whether it held more memory than it may, and was ended for it."""
        return self._over or _killed_for_memory(self._group)

    def peak_mb(self) -> float | None:
        """Most memory that it held so far, in MiB; None where the system does not tell."""
        self._look()
        return self._peak / _MIB if self._peak else None

    def settle(self) -> None:
        """Wait for the end of one that answers no more: it closes its connections before it is seen to have ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)

    def end(self) -> None:
        """Ask it to end, and end it."""
        self._look()
        self._ended.set()
        self._watch.join()
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _look_on(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            self._look()
            if self._group is None and self._peak > self.within.memory_mb * _MIB and self.code is None:
                self._over = True
                self._process.kill()

    def _look(self) -> None:
        self._peak = max(self._peak, high_water(self.pid) or 0)


@contextmanager
def confined(
    command: Sequence[str],
    cores: Cores,
    memory_mb: int,
    log: Path,
    env: Mapping[str, str] | None = None,
    cgroup: Path | None = None,
) -> Iterator[Confined]:
    """Run ``command`` (its program by path) for as long as the block lasts; it ends with this process, too.

    Args:
        memory_mb: most memory in MiB.
        log: what it prints is added there.
        cgroup: a delegated control group of version 2, in which one is made for the process.

    Raises:
        UnusableCgroup: no group can be made in ``cgroup``.
    """
    how = "cgroup" if cgroup else "watch"
    within = Confinement(how=how, cores=len(cores.node), memory_mb=memory_mb, shared=cores.shared)
    with _group(cgroup, len(cores.node), memory_mb) as group, log.open("ab") as sink:
        words = [",".join(map(str, cores.node)), str(group or "-"), str(os.getpid()), "--", *command]
        cell = [sys.executable, "-m", "edgeloop.twin.cell", *words]
        running = Confined(subprocess.Popen(cell, stdout=sink, stderr=sink, env=env), within, group)
        try:
            yield running
        finally:
            running.end()


@contextmanager
def asking_from(cores: Cores) -> Iterator[None]:
    """Run this thread, and those that it starts meanwhile, on the sender's cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores.sender)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def high_water(pid: int) -> int | None:
    """Most resident memory that a process ever held, in bytes; None when it is gone or the system does not tell."""
    try:
        told = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", told, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


# --- control groups


@contextmanager
def _group(parent: Path | None, cores: int, memory_mb: int) -> Iterator[Path | None]:
    if parent is None:
        yield None
        return
    folder = parent / f"twin-{uuid4().hex[:12]}"
    try:
        if not {"cpu", "memory"} <= set((parent / "cgroup.subtree_control").read_text(encoding="ascii").split()):
            raise OSError("it does not hand on cpu and memory")
        folder.mkdir()
        (folder / "memory.max").write_text(str(memory_mb * _MIB), encoding="ascii")
        with suppress(FileNotFoundError, PermissionError):  # a system without swap has none
            (folder / "memory.swap.max").write_text("0", encoding="ascii")
        (folder / "cpu.max").write_text(f"{cores * _PERIOD} {_PERIOD}", encoding="ascii")
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        raise UnusableCgroup(
            f"EDGELOOP_TWIN_CGROUP {parent}: {error.strerror or error}: name a control group of version 2 that is"
            " delegated to you, with cpu and memory in its cgroup.subtree_control, or unset it"
        ) from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def _killed_for_memory(group: Path | None) -> bool:
    try:
        told = (group / "memory.events").read_text(encoding="ascii") if group else ""
    except OSError:
        return False
    return any(line.split()[-1] != "0" for line in told.splitlines() if line.startswith("oom_kill "))
