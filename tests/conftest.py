"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.ceph import s3_server

__all__ = ["s3_server"]

ROOT = Path(__file__).resolve().parent.parent
# A machine that stands still for a moment is no fault of the example that was under way.
settings.register_profile("unhurried", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def need(condition: bool, reason: str) -> None:
    """Skip with ``reason`` (which says how to install what is missing); with CI=true that is a failure."""
    if condition:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked ``alone`` in a process of its own, whose heap no other test has left in pieces."""
    if pyfuncitem.get_closest_marker("alone") is None or os.environ.get("EDGELOOP_TEST_ALONE") == pyfuncitem.nodeid:
        return None
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    # No cache: the parent's record of what failed is not the child's to write.
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    ran = subprocess.run(
        command,
        env={**kept, "EDGELOOP_TEST_ALONE": pyfuncitem.nodeid},
        cwd=pyfuncitem.config.rootpath,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        pytest.fail(f"alone in a process:\n{ran.stdout}", pytrace=False)
    return True


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data sets and models for tests: a folder beside the repository, or where EDGELOOP_SHARED says."""
    folder = Path(os.environ.get("EDGELOOP_SHARED", ROOT.parent / "shared"))
    need((folder / "datasets").is_dir(), f"no data sets at {folder}: set EDGELOOP_SHARED to a folder that has them")
    return folder
