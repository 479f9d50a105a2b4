"""The flow that looks at every service: a finding becomes one run that is asked for, and a page in Prefect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("monitor")
    command = [sys.executable, "-m", "tests.flows.monitored", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_the_monitor_asks_for_one_run_however_often_it_looks(found: dict[str, Any]) -> None:
    assert found["drifted"] == [1, 1]
    assert len(found["runs"]) == 1
    ((asked,),) = found["asked"]
    assert asked["service"] == "rater"
    assert asked["reason"].startswith("drift: inputs drifted: ")


def test_the_page_shows_what_was_found(found: dict[str, Any]) -> None:
    assert found["page"].startswith("## rater, version 1: inputs drifted")
    assert "| quantity | evidence | threshold |" in found["page"]


def test_one_service_that_fails_hides_no_other_and_is_seen(found: dict[str, Any]) -> None:
    assert found["error"] == "no service missing: add it"
    assert found["looked"] == "nothing is new since the last look"
