"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.servers.ceph import s3_server

__all__ = ["s3_server"]

ROOT = Path(__file__).resolve().parent.parent


def need(condition: bool, reason: str) -> None:
    """Skip with ``reason`` (which says how to install what is missing); with CI=true that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data sets and models for tests: a folder beside the repository, or where EDGELOOP_SHARED says."""
    folder = Path(os.environ.get("EDGELOOP_SHARED", ROOT.parent / "shared"))
    need((folder / "datasets").is_dir(), f"no data sets at {folder}: set EDGELOOP_SHARED to a folder that has them")
    return folder
