"""Ends a stack from another process: ``edgeloop down``."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from edgeloop.stack.processes import Process, wait_gone
from edgeloop.stack.record import end_leftovers, locked, read_record, remove_record


def stop_running(home: Path, timeout: float = 60.0) -> list[str]:
    """Stop the stack of ``home`` and return the names of the parts that ran, sorted; empty when none did.

    The supervisor gets SIGTERM and ``timeout`` seconds; then it is killed, and what it left behind is ended.
    Only processes with the start time or the mark that the stack wrote down are touched.

    Raises:
        AlreadyRunning: another stack was started in this home meanwhile.
    """
    home = home.absolute()
    record = read_record(home)
    if record is None:
        return []
    running = {name for name, process in record.parts.items() if process.alive}
    _ask(record.supervisor, signal.SIGTERM)
    if wait_gone([record.supervisor], timeout):
        _ask(record.supervisor, signal.SIGKILL)
        wait_gone([record.supervisor], 5.0)
    # A killed process is a zombie before the last of its threads has let go of the lock.
    with locked(home, patience=5.0):
        # The record may have grown while the supervisor was going.
        running.update(end_leftovers(read_record(home) or record))
        remove_record(home)
    return sorted(running - {"other"})


def _ask(process: Process, number: int) -> None:
    if process.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
