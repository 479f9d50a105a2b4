"""Bad input is one line with the next step, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli import ROOT, edgeloop

pytestmark = pytest.mark.e2e
WINE = ROOT / "deployments" / "services" / "wine-rater.yaml"


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> str:
    """The one line that a refused command prints; on stdout it is the same as JSON."""
    assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgeloop: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert all(part in lines[0] for part in parts), lines[0]
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == 2
    assert lines[0] == f"edgeloop: {answer['error']}"
    return lines[0]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def nothing_started(home: Path) -> None:
    assert not (home / "stack.json").exists()
    assert not (home / "store").exists()


def test_unknown_service(home: Path) -> None:
    refused(edgeloop("demo", "--service", "birds", home=home), "'birds'", "digits", "add ")
    nothing_started(home)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("audit: 0.5", "audit: lots", ["selection.audit", "'lots'"]),
        ("trainer:", "trainner:", ["trainner"]),
        ("min_samples: 40", "min_samples: 0", ["gate.min_samples"]),
        ("rings: [0, 1]", "rings: [0, 1", ["not YAML"]),
        ("kind: tabular-regressor", "kind: image-classifier", ["image"]),
    ],
)
def test_malformed_service_names_file_line_and_field(
    home: Path, tmp_path: Path, old: str, new: str, parts: list[str]
) -> None:
    text = WINE.read_text(encoding="utf-8")
    assert old in text
    folder = tmp_path / "services"
    folder.mkdir()
    broken = folder / "wine-rater.yaml"
    broken.write_text(text.replace(old, new), encoding="utf-8")
    line = refused(
        edgeloop("demo", "--service", "wine-rater", home=home, environ={"EDGELOOP_SERVICES": str(folder)}), *parts
    )
    number = int(line.split(f"{broken}:")[1].split(":")[0])
    assert abs(number - (1 + text[: text.index(old)].count("\n"))) <= 1 or "image" in parts
    nothing_started(home)


def test_data_directory_without_images(home: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    refused(edgeloop("data", "get", "cats-dogs", "--from", str(tmp_path / "photos"), home=home), "no images", "cat")
    assert not list((home / "data").iterdir())


def test_unknown_data_set_and_missing_directory(home: Path, tmp_path: Path) -> None:
    refused(edgeloop("data", "get", "birds", home=home), "'birds'", "wine")
    refused(
        edgeloop("data", "get", "wine", "--from", str(tmp_path / "nowhere"), home=home), "nowhere", "not a directory"
    )


def test_a_data_set_with_a_wrong_checksum(home: Path, tmp_path: Path) -> None:
    for name in ("winequality-red.csv", "winequality-white.csv"):
        (tmp_path / name).write_text("quality\n5\n", encoding="utf-8")
    refused(edgeloop("data", "get", "wine", "--from", str(tmp_path), home=home), "sha256", "winequality-red.csv")
    assert not (home / "data" / "wine").exists()


@pytest.fixture
def wine(home: Path, shared: Path) -> Iterator[Path]:
    folder = home / "data" / "wine"
    shutil.copytree(shared / "datasets" / "wine", folder)
    for file in folder.iterdir():
        file.chmod(0o644)
    yield folder


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("7;0.3;0.4", ["wrong length"]),
        ("7;0.3;x;1;0.1;10;20;0.99;3;0.5;9;5", ["'x'"]),
        ("7;0.3;nan;1;0.1;10;20;0.99;3;0.5;9;5", ["nan"]),
        ("7;0.3;inf;1;0.1;10;20;0.99;3;0.5;9;5", ["inf"]),
        ("7;0.3;0.4;1;0.1;10;20;0.99;3;0.5;9;55", ["55.0", "between"]),
    ],
)
def test_a_bad_row_names_file_and_line(wine: Path, home: Path, row: str, parts: list[str]) -> None:
    from edgeloop.samples.service import load_service
    from edgeloop.sources.catalog import UnusableData
    from edgeloop.sources.streams import load_stream

    path = wine / "winequality-red.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([lines[0], lines[1], row, *lines[2:]]) + "\n", encoding="utf-8")
    with pytest.raises(UnusableData) as caught:
        load_stream(load_service("wine-rater", [WINE.parent]), wine, 3, 0)
    assert f"{path}:3:" in str(caught.value)
    assert all(part in str(caught.value).lower() for part in parts)


def test_an_empty_stream(wine: Path) -> None:
    from edgeloop.samples.service import load_service
    from edgeloop.sources.streams import EmptyStream, load_stream

    for path in wine.glob("*.csv"):
        path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(EmptyStream, match="fewer rounds"):
        load_stream(load_service("wine-rater", [WINE.parent]), wine, 3, 0)


def test_an_image_that_does_not_decode(tmp_path: Path) -> None:
    from edgeloop.samples.service import load_service
    from edgeloop.sources.catalog import UnusableData
    from edgeloop.sources.streams import load_stream

    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(b"\xff\xd8\xff no photo")
    with pytest.raises(UnusableData, match=r"cat/1\.jpg.*not a JPEG"):
        load_stream(load_service("cats-dogs", [WINE.parent]), tmp_path, 3, 0)


def test_a_demo_without_its_data_says_how_to_get_it(home: Path) -> None:
    refused(edgeloop("demo", "--service", "wine-rater", home=home), "edgeloop data get wine")


def test_a_backbone_that_is_none(home: Path, tmp_path: Path) -> None:
    refused(edgeloop("demo", "--service", "cats-dogs", "--backbone", str(tmp_path / "x.tflite"), home=home), "x.tflite")
    nothing_started(home)


def test_a_taken_port(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = edgeloop("up", "--nodes", "1", "--free-ports", "--port", f"mlflow={port}", home=home, timeout=60)
    refused(done, str(port), "mlflow", "--port")
    assert not (home / "stack.json").exists()


def test_a_home_of_a_newer_version(home: Path) -> None:
    home.mkdir()
    (home / "home.json").write_text('{"version": 99}', encoding="utf-8")
    refused(edgeloop("status", home=home), "99", "upgrade")


def test_too_many_rounds(home: Path) -> None:
    refused(edgeloop("demo", "--rounds", "99", home=home), "99", "1 and 20")


def test_an_unknown_option_and_command(home: Path) -> None:
    refused(edgeloop("demo", "--colour", "red", home=home), "--colour")
    refused(edgeloop("fly", home=home), "fly")


def test_a_missing_extra_prints_the_install_command(tmp_path: Path) -> None:
    """A real environment with a node's packages only: the node's commands work there, the others say what they need."""
    uv = Path(sys.executable).with_name("uv")
    venv = tmp_path / "node"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    python = venv / "bin" / "python"
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements" / "node.txt"], check=True)
    subprocess.run([*install, "--no-deps", ROOT], check=True)
    command: list[str | Path] = [python, "-m", "edgeloop.cli", "--json", "--home", tmp_path / "home"]
    done = subprocess.run([*command, "demo"], capture_output=True, text=True, cwd=tmp_path, check=False)
    refused(done, "pip install 'edgeloop[")
    config = tmp_path / "node.yaml"
    config.write_text("node: edge-1\n", encoding="utf-8")
    done = subprocess.run(
        [*command, "node", "--config", config], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    refused(done, "node.yaml:1", "ring")
