"""What a stack writes down about itself: where it listens and which processes are its own.

``<home>/stack.json`` is how other commands find a running stack, and how the next ``edgeloop up`` finds what
a killed one left behind. ``<home>/stack.lock`` keeps a second supervisor away.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgeloop.errors import BadInput
from edgeloop.stack.processes import Process, end, marked

VERSION = 1


class AlreadyRunning(BadInput):
    """Another supervisor has this home."""


@dataclass(frozen=True)
class StackRecord:
    """The content of ``stack.json``."""

    supervisor: Process
    life: str
    addresses: Mapping[str, str]
    parts: Mapping[str, Process] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The record as JSON-able values; a part leads its group, so its group's number is its pid."""
        parts = {n: {"pid": p.pid, "pgid": p.pid, "started": p.started} for n, p in self.parts.items()}
        return {
            "version": VERSION,
            "supervisor": {
                "pid": self.supervisor.pid,
                "started": self.supervisor.started,
            },
            "life": self.life,
            "addresses": dict(self.addresses),
            "parts": parts,
        }


def record_path(home: Path) -> Path:
    """Where a stack writes its record."""
    return home / "stack.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside ``path`` and rename it, so that no reader sees half of it."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_text(json.dumps(value, indent=1), encoding="utf-8")
    beside.replace(path)


def write_record(home: Path, record: StackRecord) -> None:
    """Replace ``<home>/stack.json``."""
    write_json(record_path(home), record.as_json())


def read_record(home: Path) -> StackRecord | None:
    """The record of the stack that runs in ``home`` or was killed there; None when none can be read."""
    try:
        value = json.loads(record_path(home).read_text(encoding="utf-8"))
        parts = {name: _process(part) for name, part in value["parts"].items()}
        addresses = {str(k): str(v) for k, v in value["addresses"].items()}
        return StackRecord(_process(value["supervisor"]), str(value.get("life", "")), addresses, parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _process(value: Mapping[str, Any]) -> Process:
    return Process(int(value["pid"]), str(value["started"]))


def remove_record(home: Path) -> None:
    """Forget the stack: it was stopped cleanly."""
    record_path(home).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(home: Path, patience: float = 0.0) -> Iterator[None]:
    """Be the only supervisor of ``home``; wait up to ``patience`` seconds for another to let go.

    Raises:
        AlreadyRunning: another process is.
    """
    with (home / "stack.lock").open("a") as lock:
        until = time.monotonic() + patience
        while not _take(lock):
            if time.monotonic() >= until:
                record = read_record(home)
                who = f" (pid {record.supervisor.pid})" if record else ""
                raise AlreadyRunning(
                    f"a stack runs in {home}{who}: stop it with  edgeloop down  or choose another --home"
                )
            time.sleep(0.05)
        yield


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def leftovers(record: StackRecord) -> dict[str, list[Process]]:
    """Processes of a stack whose supervisor is gone, by part; what a part started itself is under ``""``."""
    found = {name: [process] for name, process in record.parts.items() if process.alive}
    known = {process.pid for processes in found.values() for process in processes}
    others = [process for process in marked(record.life) if process.pid not in known]
    return {**found, "": others} if others else found


def end_leftovers(record: StackRecord, grace: float = 5.0) -> list[str]:
    """End what a dead supervisor left behind; returns the names of the parts that still ran."""
    found = leftovers(record)
    end([process for processes in found.values() for process in processes], grace)
    # A part may have started another process while it was being ended.
    end(marked(record.life), grace=0.0)
    return sorted(name or "other" for name in found)
