"""Fixtures of the node's tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.edge.asking import MakeWeb, Web


@pytest.fixture
def webs(tmp_path: Path) -> Iterator[MakeWeb]:
    """Makes applications with the given fields of their Site; they are closed however the test ends."""
    with ExitStack() as stack:

        def make(**site: Any) -> Web:
            return stack.enter_context(closing(Web(tmp_path / "node", **site)))

        yield make


@pytest.fixture
def web(webs: MakeWeb) -> Web:
    """The application as it is by default."""
    return webs()
