"""A real mosquitto for tests, on a port of its own, that can be killed and brought back."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import pytest

from tests.servers.authority import Pair
from tests.servers.ports import free_port

MISSING = "mosquitto is not installed: apt-get install -y mosquitto"


def find_mosquitto() -> str:
    """Path of the program; without it a test is skipped, and fails when CI=true."""
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    return path


@dataclass(frozen=True)
class Secured:
    """How a mosquitto asks who is there. Without ``passwords``, anyone may connect."""

    server: Pair | None = None
    """Its certificate; with it the listener speaks TLS."""
    client_ca: Path | None = None
    """Clients must show a certificate of this authority; its common name is their user name."""
    passwords: Mapping[str, str] | None = None
    acl: str | None = None

    def lines(self, folder: Path) -> list[str]:
        """The part of mosquitto.conf."""
        lines = [f"allow_anonymous {'true' if self.passwords is None else 'false'}"]
        if self.passwords is not None:
            hashed = [f"{user}:{_hash(password)}" for user, password in self.passwords.items()]
            lines.append(f"password_file {_write(folder / 'passwords', hashed)}")
        if self.acl is not None:
            lines.append(f"acl_file {_write(folder / 'acl', [self.acl])}")
        if self.server is not None:
            lines += [f"certfile {self.server.cert}", f"keyfile {self.server.key}", "tls_version tlsv1.2"]
        if self.client_ca is not None:
            lines += [f"cafile {self.client_ca}", "require_certificate true", "use_identity_as_username true"]
        return lines


def _write(file: Path, lines: Sequence[str]) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    file.chmod(0o600)
    return file


def _hash(password: str) -> str:
    """As mosquitto_passwd writes it: PBKDF2 with SHA-512."""
    salt, rounds = os.urandom(12), 101
    made = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(made).decode()}"


class Mosquitto:
    """Starts on entry, ends by its pid on exit; ``persistent`` keeps sessions over a kill.

    ``options`` are further lines of mosquitto.conf, such as ``max_packet_size 10000``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        persistent: bool = False,
        secured: Secured | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self._program = find_mosquitto()
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "mosquitto.conf"
        self._is_tls = secured is not None and secured.server is not None
        lines = [f"listener {self.port} 127.0.0.1", *(secured or Secured()).lines(folder)]
        lines += ["max_queued_messages 100000", "set_tcp_nodelay true", *options]
        if os.geteuid() == 0:
            lines.append("user root")
        if persistent:
            lines += ["persistence true", f"persistence_location {folder}/", "autosave_on_changes true"]
            lines.append("autosave_interval 1")
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def url(self) -> str:
        """Address for clients, without user and files."""
        return f"{'mqtts' if self._is_tls else 'mqtt'}://127.0.0.1:{self.port}"

    def url_for(self, user: str, password: str) -> str:
        """Address with a user."""
        return self.url.replace("//", f"//{quote(user, safe='')}:{quote(password, safe='')}@", 1)

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start and wait until the port answers."""
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, "-c", str(self._config)], stdout=log, stderr=log)
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError((self._folder / "mosquitto.log").read_text(encoding="utf-8"))

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        """End it in good order."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def restart(self) -> None:
        """Kill and start again on the same port."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
