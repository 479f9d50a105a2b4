"""The plan of the house holds: rooms, layers, what a node imports, and what the wheel carries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"tensorflow", "keras", "sklearn", "pandas", "pyarrow", "deltalake", "great_expectations", "mlflow", "prefect"}


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout


@pytest.mark.parametrize("room", ["flows", "tasks", "deployments", "infra", "data", "tests", "docs", "edgeloop"])
def test_every_room_stands(room: str) -> None:
    assert any((ROOT / room).iterdir())


@pytest.mark.parametrize(
    "module", ["edgeloop.edge.node", "edgeloop.edge.http", "edgeloop.clients.models", "edgeloop.samples.segments"]
)
def test_a_node_imports_nothing_that_only_the_cloud_needs(module: str) -> None:
    loaded = set(fresh(f"import sys, {module}; print(*sys.modules)").split())
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_the_command_line_starts_without_heavy_imports() -> None:
    loaded = set(fresh("import sys, edgeloop.cli; print(*sys.modules)").split())
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_the_wheel_holds_the_library_only(tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], check=True, capture_output=True)
    import zipfile

    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"edgeloop"}


def test_requirements_name_no_index() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "index-url" not in text
