"""One process of a stack: a command, where it runs, and how to see that it works."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeloop.stack.health import Health


@dataclass(frozen=True)
class Part:
    """One supervised process."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    """The whole environment of the process."""
    cwd: Path
    health: Health
    """None when it works, else what is missing; not asked of a part that runs ``once``."""
    needs: tuple[str, ...] = ()
    """Parts that must be healthy before this one starts, and are stopped after it."""
    address: str = ""
    """Where a person or a program finds it; empty when it listens nowhere."""
    once: bool = False
    """It runs to its end; ending with 0 is its health."""
    restart: bool = True
    """Start it again when it dies."""
    stop_signal: int = signal.SIGTERM
    grace: float = 10.0
    """Seconds between the stop signal and SIGKILL."""
    deadline: float = 120.0
    """Seconds it may take to become healthy."""
