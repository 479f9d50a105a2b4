"""The node process under test, its small disk, and what a crash leaves half-written on it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.servers.ports import free_port, wait_until

DISK_MB = 16


class Disk:
    """A small disk of its own where this user may mount one; else a limit on the size of the node's files.

    The limit stands for a full disk in that every write fails in the kernel, with EFBIG instead of ENOSPC.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
        self.mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        self.full = False

    def fill(self, left: int) -> None:
        """Leave room for ``left`` pages."""
        self.full = True
        if not self.mounted:
            return
        file = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            while True:
                os.write(file, bytes(4096))
        except OSError:
            os.ftruncate(file, max(0, os.fstat(file).st_size - left * 4096))
        finally:
            os.close(file)

    def free(self) -> None:
        """Make room again."""
        self.full = False
        self._ballast.unlink(missing_ok=True)

    def limit(self, pid: int) -> None:
        """Where nothing is mounted: let the process write to no file while the disk is full."""
        if not self.mounted:
            size = 0 if self.full else resource.RLIM_INFINITY
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def close(self) -> None:
        """Unmount; a second call does nothing."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True, check=False)
            self.mounted = False


class NodeProcess:
    """``python -m edgeloop.edge.node``, killed and started again on the same state and port."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        self.disk = Disk(folder / "state")
        self.port = free_port()
        self.starts = 0
        self._log = folder / "node.log"
        self._config = folder / "node.yaml"
        own = {"state": "state", "http": f"127.0.0.1:{self.port}"}
        self._config.write_text(yaml.safe_dump({**settings, **own}), encoding="utf-8")
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("EDGELOOP_")} | dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def state(self) -> Path:
        """The node's state folder: its disk."""
        return self.disk.folder

    @property
    def running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def start(self) -> None:
        """Start; does not wait until it answers."""
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "edgeloop.edge.node"]
        with self._log.open("ab") as log:
            arguments = [*command, "--config", str(self._config)]
            self._process = subprocess.Popen(arguments, stderr=log, env=self._environ)
        self.starts += 1
        self.limit()

    def limit(self) -> None:
        """See :meth:`Disk.limit`."""
        if self._process is not None:
            self.disk.limit(self._process.pid)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """Ask it to end; returns its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(30)
        self._process = None
        return code

    def gave_up(self) -> str | None:
        """What it said before it ended although nobody ended it."""
        code = None if self._process is None else self._process.poll()
        return None if code is None else f"the node ended by itself with {code}: {self.log()[-1500:]}"

    def log(self) -> str:
        """Everything that it has logged."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a page; status 0 when it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def wait_ready(self, seconds: float = 30) -> None:
        """Wait until every service has a release."""

        def ready() -> bool:
            if said := self.gave_up():
                raise AssertionError(said)
            return self.get("/readyz")[0] == 200

        wait_until(f"a ready node: {self.get('/readyz')}", ready, seconds=seconds)

    def close(self) -> None:
        """Kill it and take its disk away."""
        if self._process is not None:
            self.kill()
        self.disk.close()


class Tearer:
    """Does to a dead node's disk what a crash at a bad moment does. Nothing that was acknowledged is touched."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._spool = state / "spool"
        self._uploaded: dict[Path, bytes] = {}

    def tear(self, variant: int) -> str:
        """Leave one kind of half-done work; returns which."""
        ways = (self._half_a_frame, self._blocks_of_zeros, self._no_rename, self._no_unlink)
        way = ways[variant % len(ways)]
        try:
            way()
        except OSError as error:  # the disk is full: then a crash leaves no more either
            return f"{way.__name__}: {error}"
        return way.__name__

    def _half_a_frame(self) -> None:
        for log in self._spool.glob("*.open"):
            self._append(log, log.read_bytes()[:150])

    def _blocks_of_zeros(self) -> None:
        for log in self._spool.glob("*.open"):
            self._append(log, bytes(4096))

    def _append(self, log: Path, data: bytes) -> None:
        with log.open("ab") as file:
            file.write(data)

    def _no_rename(self) -> None:
        """Files that were written beside and not yet renamed."""
        whole = json.dumps({"version": 1, "services": {}}).encode()
        (self._state / "state.json.tmp").write_bytes(whole[:17])
        blobs = self._state / "blobs" / "sha256"
        for name in ([path.name for path in blobs.iterdir()] if blobs.is_dir() else [])[:1]:
            (blobs / f"{name}.tmp").write_bytes(b"half")

    def _no_unlink(self) -> None:
        """Logs that were uploaded, and whose deletion the crash took back; and a log that was just sealed."""
        for path, data in self._uploaded.items():
            if not path.exists():
                path.write_bytes(data)
        for log in self._spool.glob("*.open"):
            sealed = log.with_suffix(".sealed")
            if log.stat().st_size and not sealed.exists():
                log.rename(sealed)
        done = [path for path in self._spool.glob("*.*.*.*") if path.suffix in (".sealed", ".sending")]
        self._uploaded = {path: path.read_bytes() for path in done}
