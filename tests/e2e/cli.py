"""Run the command line as a user does, and read what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def edgeloop(
    *words: str, home: Path, environ: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run ``edgeloop`` with ``--json`` and a home."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | dict(environ or {})
    command = [sys.executable, "-m", "edgeloop.cli", "--json", "--home", str(home), *words]
    return subprocess.run(command, cwd=ROOT, env=env, text=True, capture_output=True, timeout=timeout, check=False)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON object on stdout of a command that succeeded."""
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    value: dict[str, Any] = json.loads(done.stdout)
    return value
