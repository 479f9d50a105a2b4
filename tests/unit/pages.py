"""The pages of docs/ and data/ as tests read them: sections, tables and code, and the commands they may show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CHANGELOG.md", *(ROOT / "data").rglob("*.md")])
Row = list[str]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def sections(page: Path) -> dict[str, str]:
    """Text below each heading of any level, by the heading."""
    parts = re.split(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[Row]:
    """Cells of the first table in ``text``, without its header."""
    found: list[Row] = []
    for line in text.splitlines():
        if line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
        elif found:
            break
    return found[2:]


def described(page: str, heading: str) -> list[Row]:
    return rows(sections(REFERENCE / page)[heading])


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def commands(group: click.Group, prefix: str = "edgeloop") -> Iterator[tuple[list[str], click.Command]]:
    for name, command in group.commands.items():
        yield [prefix, name], command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
