"""Tiny programs that stand in for servers."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.stack.parts import Part

FOREVER = "import signal\nwhile True: signal.pause()"


def told(ready: Path) -> str:
    """A program that says it is ready by a file with its pid, and then waits."""
    return f"import os,pathlib\np=pathlib.Path({str(ready)!r})\np.write_text(str(os.getpid()))\n{FOREVER}"


def part(
    name: str,
    folder: Path,
    code: str | None = None,
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> Part:
    """A part that runs ``code`` and is healthy once ``folder/NAME.ready`` is there."""
    ready = folder / f"{name}.ready"
    return Part(
        name=name,
        command=(sys.executable, "-c", told(ready) if code is None else code),
        env={**os.environ, **(env or {})},
        cwd=folder,
        health=lambda: None if ready.exists() else f"no {ready.name}",
        **{"grace": 5.0, "deadline": 20.0, **more},
    )
