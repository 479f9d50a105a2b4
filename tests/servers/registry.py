"""A real image registry (Debian's docker-registry) for tests, on a port of its own, with its files in a folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import need
from tests.servers.authority import Pair
from tests.servers.ports import free_port, listens, wait_until

REGISTRY_MISSING = "docker-registry is not installed: apt-get install -y docker-registry"
USER, PASSWORD = "pusher", "open sesame"
#: bcrypt of the password, the only kind that it knows.
_HASHED = "$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"


@dataclass
class DockerRegistry:
    """A running registry."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "registry.log").read_text(errors="replace")

    def start(self) -> None:
        """Start and wait until the port answers."""
        # Should the tests be killed, the kernel ends their servers too.
        command = ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", str(self.folder / "config.yml")]
        with (self.folder / "registry.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def ready() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(self.log[-600:])
            return listens(self.port)

        wait_until(f"docker-registry on {self.name}", ready, seconds=60)

    def stop(self) -> None:
        """End it by its pid; a second call does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def docker_registry(folder: Path, *, asks: bool = False, tls: Pair | None = None) -> Iterator[DockerRegistry]:
    """A fresh registry; with ``asks`` only USER with PASSWORD may do anything, with ``tls`` it speaks https."""
    need(shutil.which("docker-registry") is not None, REGISTRY_MISSING)
    folder.mkdir(parents=True, exist_ok=True)
    server = DockerRegistry(folder, free_port())
    lines = ["version: 0.1", "log: {level: info}", "storage:", f"  filesystem: {{rootdirectory: {folder / 'data'}}}"]
    lines += [f"http:\n  addr: {server.name}"]
    if tls is not None:
        lines.append(f"  tls: {{certificate: {tls.cert}, key: {tls.key}}}")
    if asks:
        (folder / "htpasswd").write_text(f"{USER}:{_HASHED}\n", encoding="utf-8")
        lines.append(f"auth:\n  htpasswd: {{realm: tests, path: {folder / 'htpasswd'}}}")
    (folder / "config.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        server.start()
        yield server
    finally:
        server.stop()
