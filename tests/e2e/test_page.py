"""``edgeloop web`` as it is started by hand, on a home where everything is away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cli import ROOT, edgeloop
from tests.servers.ports import free_ports, listens, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def away() -> dict[str, str]:
    """An environment in which nothing answers where it should."""
    mlflow, prefect, broker = free_ports(3)
    return {
        "EDGELOOP_MLFLOW": f"http://127.0.0.1:{mlflow}",
        "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
        "EDGELOOP_BROKER": f"mqtt://127.0.0.1:{broker}",
    }


@pytest.fixture
def page(tmp_path: Path, away: dict[str, str]) -> Iterator[str]:
    """Address of a page on an empty home."""
    command = [sys.executable, "-m", "edgeloop.cli", "--json", "--home", str(tmp_path), "web", "--port", "0"]
    env = {"PATH": "/usr/bin:/bin", **away}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield str(json.loads(child.stdout.readline())["address"])
        finally:
            child.terminate()
            child.wait(60)


def test_the_page_answers_and_names_what_is_away(page: str, away: dict[str, str], tmp_path: Path) -> None:
    with httpx.Client(base_url=page, trust_env=False, timeout=30) as browser:
        assert browser.get("/healthz").json() == {"live": True}
        answer = browser.get("/")
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert str(tmp_path) in answer.text
        for address in away.values():
            assert address.removeprefix("mqtt://").removesuffix("/api") in answer.text
        found = browser.get("/status.json").json()
        assert found["unknown"] == ["flows", "champions", "nodes"]
        assert browser.get("/style.css").status_code == 200
        assert browser.get("/", headers={"host": "rebound.example"}).status_code == 400


def test_a_taken_port_is_one_line(page: str, tmp_path: Path) -> None:
    port = page.rpartition(":")[2]
    done = edgeloop("web", "--port", port, home=tmp_path, timeout=60)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"edgeloop: port {port} is taken: stop what listens there, or choose edgeloop web --port NUMBER\n"
    )


def test_the_page_is_not_offered_to_others(tmp_path: Path) -> None:
    done = edgeloop("web", "--host", "0.0.0.0", "--port", "0", home=tmp_path, timeout=60)
    assert done.returncode == 2
    assert "0.0.0.0" in done.stderr


def test_it_goes_when_told(tmp_path: Path, away: dict[str, str]) -> None:
    port = free_ports(1)[0]
    command = [sys.executable, "-m", "edgeloop.cli", "--home", str(tmp_path), "web", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **away}) as child:
        wait_until("the page", lambda: listens(port))
        child.terminate()
        child.wait(60)
    assert not listens(port)
