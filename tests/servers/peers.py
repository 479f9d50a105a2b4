"""KServe's and MLServer's own servers and a node's base install, each in an environment made when first asked for.

They cannot share an environment with edgeloop or each other. ``.venv-peers/NAME`` is made from
``requirements/peers-NAME.txt``, a node's from ``requirements/node.txt``, and made anew when that file changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.conftest import ROOT, need
from tests.servers.ports import free_ports, wait_until

PROGRAMS = "tests.contract.peers"
HOME = ROOT / ".venv-peers"
_INSTALL_SECONDS = 600


def peer_python(name: str) -> Path:
    """The interpreter of the peer ``name``; without uv or a network the test is skipped, and fails when CI=true."""
    return _environment(name, ROOT / "requirements" / f"peers-{name}.txt")


def base_install() -> Path:
    """The folder of programs of an environment with edgeloop as a node installs it: without any extra."""
    programs = _environment("node", ROOT / "requirements" / "node.txt").parent
    python, script = programs / "python", programs / "edgeloop"
    with _alone("node"):
        fault = (
            None if script.is_file() else _run("pip", "install", "--python", python, "--no-deps", "--editable", ROOT)
        )
    need(fault is None, f"edgeloop cannot be installed into {programs.parent} ({fault})")
    return programs


def _environment(name: str, requirements: Path) -> Path:
    folder = HOME / name
    by_hand = f"uv venv {folder} && uv pip install --python {folder} --require-hashes -r {requirements}"
    with _alone(name):
        wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
        done = folder / ".requirements.sha256"
        if not done.is_file() or done.read_text(encoding="ascii") != wanted:
            fault = _make(folder, requirements)
            need(fault is None, f"the environment of {name} cannot be made ({fault}): run  {by_hand}")
            done.write_text(wanted, encoding="ascii")
    return folder / "bin" / "python"


@contextmanager
def _alone(name: str) -> Iterator[None]:
    HOME.mkdir(exist_ok=True)
    (HOME / ".gitignore").write_text("*\n", encoding="ascii")
    with (HOME / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, requirements: Path) -> str | None:
    """Make the environment; returns what went wrong."""
    fault = _run("venv", "--clear", "--python", sys.executable, folder)
    into = ("--python", folder / "bin" / "python")
    return fault or _run("pip", "install", *into, "--compile-bytecode", "--require-hashes", "-r", requirements)


def _run(*step: str | Path) -> str | None:
    """Run uv; returns what went wrong."""
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is None:
        return "uv is not installed"
    try:
        subprocess.run([uv, *step], check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return " ".join(str(said).split())[-300:]
    return None


@dataclass
class ModelFiles:
    """What the peers serve: files named for their services."""

    folder: Path
    rater: Any
    """A fitted scikit-learn regressor,"""
    sorter: Any
    """a fitted classifier,"""
    backbone: bytes
    """a LiteRT extractor"""
    head: bytes
    """and the head on it, as npz with ``weights`` and ``bias``."""

    def write(self) -> None:
        """Write them all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rater.pickle").write_bytes(pickle.dumps(self.rater))
        (self.folder / "sorter.pickle").write_bytes(pickle.dumps(self.sorter))
        (self.folder / "backbone.tflite").write_bytes(self.backbone)
        (self.folder / "head.npz").write_bytes(self.head)


class Peer:
    """A server process with the three models; starts on entry and ends by its pid on exit."""

    def __init__(self, name: str, command: list[str], folder: Path, port: int, cwd: Path) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self._command = command
        self._log = folder / f"{name}.log"
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        env = {k: v for k, v in os.environ.items() if not k.startswith("MLSERVER_")}
        env |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "*"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, cwd=self._cwd, env=env)
        try:
            wait_until(f"{self.name} is ready", self._is_ready, seconds=120, every=0.2)
        except BaseException:
            self.stop()
            raise
        return self

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {self._log.read_text(encoding='utf-8', errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/v2/models/looker/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def kserve_peer(files: ModelFiles) -> Peer:
    """KServe's Python server."""
    python = peer_python("kserve")
    (port,) = free_ports(1)
    command = [str(python), "-m", f"{PROGRAMS}.kserve_models", str(files.folder), str(port)]
    return Peer("kserve", command, files.folder, port, files.folder)


def mlserver_peer(files: ModelFiles) -> Peer:
    """MLServer with its scikit-learn runtime, and a custom one for pictures."""
    python = peer_python("mlserver")
    home = files.folder / "mlserver"
    http, grpc = free_ports(2)
    settings = {"debug": False, "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "parallel_workers": 0}
    _write(home / "settings.json", settings | {"metrics_endpoint": None})
    sklearn = "mlserver_sklearn.SKLearnModel"
    models: dict[str, dict[str, Any]] = {
        "rater": {"implementation": sklearn, "parameters": {"uri": str(files.folder / "rater.pickle")}},
        "sorter": {
            "implementation": sklearn,
            "parameters": {
                "uri": str(files.folder / "sorter.pickle"),
                "extra": {"predict_fn": "predict_proba"},
            },
        },
        "looker": {"implementation": f"{PROGRAMS}.mlserver_pictures.Looker", "parameters": {"uri": str(files.folder)}},
    }
    for name, about in models.items():
        _write(home / name / "model-settings.json", {"name": name, **about})
    command = [str(python), "-c", "from mlserver.cli import main; main()", "start", str(home)]
    return Peer("mlserver", command, files.folder, http, home)


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
