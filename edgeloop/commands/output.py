"""What every command prints with, so that ``--json`` means the same everywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.settings import Settings, load_settings


@dataclass
class Context:
    """The options that all commands share."""

    home: Path | None
    as_json: bool

    @property
    def settings(self) -> Settings:
        """Settings of this process; raises InvalidSetting or NewerHome."""
        return load_settings(self.home)

    def result(self, value: Mapping[str, Any], text: str) -> None:
        """Print the outcome: ``text`` for people, ``value`` as one JSON object with ``--json``."""
        sys.stdout.write((json.dumps(value, default=str) if self.as_json else text) + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print progress on stderr; nothing with ``--json``."""
        if not self.as_json:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def table(rows: list[list[str]], header: list[str]) -> str:
    """Left-aligned columns under a header, for terminals."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)
