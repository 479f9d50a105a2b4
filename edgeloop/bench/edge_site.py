"""What ``edgeloop bench edge`` measures: a broker, a signed store and one node, each a real process on a free port."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from edgeloop.errors import EdgeloopError, Unavailable

HOST = "127.0.0.1"
SERVICE = "bench-pictures"
START_SECONDS = 120.0


class BenchFailed(EdgeloopError):
    """A process that is measured did not do what it should."""


class NoMosquitto(Unavailable):
    """The MQTT path is measured on mosquitto, which is not installed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """The first true value of ``condition``; raises BenchFailed after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise BenchFailed(f"{what}: not in {seconds:g} s: read the logs in the bench folder")


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"edgeloop.bench.peers.{module}", *arguments]


def measure(command: Sequence[str], timeout: float = 600.0) -> dict[str, Any]:
    """Run a measuring process and read the JSON that it prints."""
    done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise BenchFailed(f"{' '.join(command[:4])} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    value: dict[str, Any] = json.loads(done.stdout)
    return value


@contextmanager
def process(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, by its own id."""
    with log.open("ab") as sink:
        started = subprocess.Popen(list(command), stdout=sink, stderr=sink, env=env)
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def resident_mb(pid: int) -> float:
    """Resident memory in MiB of a process and its children."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (int(folder.name) == pid or _parent(folder) == pid):
            with suppress(OSError):  # it may have ended just now
                pages = (folder / "statm").read_text(encoding="ascii").split()[1]
                total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total / (1 << 20)


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    except OSError:
        return -1


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """A broker for many waiting messages; yields its port."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise NoMosquitto("mosquitto is not installed: apt-get install -y mosquitto")
    port = free_port()
    config = folder / "mosquitto.conf"
    lines = [f"listener {port} {HOST}", "allow_anonymous true", "set_tcp_nodelay true", "persistence false"]
    lines += ["max_queued_messages 0", "max_queued_bytes 0", "log_type error"]
    lines += ["user root"] if os.geteuid() == 0 else []
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with process([program, "-c", str(config)], folder / "mosquitto.log"):
        until(lambda: listens(port), "mosquitto")
        yield port


class NodeUnderTest:
    """One node process on a state folder of its own."""

    def __init__(self, folder: Path, store: Path, trust: Path, broker_port: int, services: list[str]) -> None:
        self.folder = folder
        self._config = folder / "node.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "node": "bench",
            "ring": 0,
            "services": services,
            "http": f"{HOST}:0",
            "state": str(folder / "state"),
            "store": str(store),
            "trust": str(trust),
            "broker": f"mqtt://{HOST}:{broker_port}",
            "poll_seconds": 1,
        }
        self._config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    @contextmanager
    def run(self, module: str = "edgeloop.edge.node") -> Iterator[subprocess.Popen[bytes]]:
        """Start it; yields when its HTTP address is known."""
        place = self.folder / "state" / "http.json"
        place.unlink(missing_ok=True)
        command = [sys.executable, "-m", module, "--config", str(self._config)]
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        with process(command, self.folder / "node.log", env) as started:
            until(place.exists, "the node")
            yield started

    @property
    def port(self) -> int:
        """Of its HTTP gateway."""
        return int(json.loads((self.folder / "state" / "http.json").read_text(encoding="utf-8"))["port"])

    def get(self, path: str) -> tuple[int, bytes]:
        """One GET."""
        from urllib.error import HTTPError
        from urllib.request import ProxyHandler, build_opener

        try:
            with build_opener(ProxyHandler({})).open(f"http://{HOST}:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def serving(self) -> str:
        """Version of the model that answers now, empty before the first."""
        status, body = self.get(f"/v2/models/{SERVICE}")
        return str(json.loads(body)["versions"][0]) if status == 200 else ""
