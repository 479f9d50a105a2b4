"""A real S3 server for tests: one Ceph monitor, one in-memory OSD and a RADOS gateway, up in a few seconds.

Fakes of S3 accept wrong secrets or ignore conditional writes; the store's promises are only worth something
against a server that keeps them. Needs root and Debian's packages; no systemd, no cephadm, loopback only.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import signal
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.servers.ports import free_ports, listens, wait_until

S3_MISSING = "install with: apt-get install -y --no-install-recommends ceph-mon ceph-osd radosgw"
# ceph-base and ceph-common, which hold the last two, come with the three packages.
_PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph")

# Proposals without the second of batching that a busy cluster wants make start-up four times as quick;
# without tcp_nodelay every small answer of the gateway waits 40 ms.
_CONFIG = """\
[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{mon_port}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
keyring = {directory}/keyring
log file = {directory}/$name.log
admin socket =
pid file =
run dir = {directory}
crash dir = {directory}
mon data = {directory}/mon
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.05
paxos min wait = 0.01
osd data = {directory}/osd
osd objectstore = memstore
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
rgw data = {directory}
rgw thread pool size = 32
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
"""


def available() -> bool:
    """Whether the programs are installed and this user may start them."""
    return os.geteuid() == 0 and all(shutil.which(program) for program in _PROGRAMS)


@dataclass
class S3Server:
    """A running gateway; `kill_gateway` and `start_gateway` let a test take it away and bring it back."""

    directory: Path
    port: int
    mon_port: int
    access_key: str
    secret_key: str
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environ(self) -> dict[str, str]:
        """What `open_store` needs to be let in."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def store_url(self, bucket: str, prefix: str = "") -> str:
        """The URL of a bucket on this server, or of a folder in it."""
        path = f"{bucket}/{quote(prefix)}" if prefix else bucket
        return f"s3://{path}?endpoint={self.endpoint}&region=us-east-1"

    def start_gateway(self) -> None:
        """Starts the gateway on its port and waits until it answers."""
        self._spawn("radosgw", "-n", "client.admin", "-f")
        self._wait("radosgw", lambda: listens(self.port))

    def kill_gateway(self) -> None:
        """Ends the gateway with SIGKILL, as a power cut would."""
        process = self._running.pop("radosgw")
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def stop(self) -> None:
        """Ends every process that this server started; a second call does nothing."""
        while self._running:
            _, process = self._running.popitem()
            process.kill()
            process.wait(30)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            [command[0], "-c", str(self.directory / "ceph.conf"), *command[1:]],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr.strip()[-600:]}")
        return done.stdout

    def _spawn(self, program: str, *arguments: str) -> None:
        # Should the tests be killed, the kernel ends their servers too.
        command = ["setpriv", "--pdeathsig", "KILL", program, "-c", str(self.directory / "ceph.conf")]
        with (self.directory / f"{program}.out").open("ab") as out:
            self._running[program] = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def _wait(self, program: str, done: Callable[[], bool]) -> None:
        def ready() -> bool:
            code = self._running[program].poll()
            if code is not None:
                said = (self.directory / f"{program}.out").read_text(errors="replace")[-600:]
                raise RuntimeError(f"{program} ended with {code}: {said}")
            return done()

        wait_until(f"{program} in {self.directory}", ready, seconds=60)


def _keyring() -> str:
    def key() -> str:
        return base64.b64encode(struct.pack("<HIIH", 1, 0, 0, 16) + secrets.token_bytes(16)).decode()

    everything = 'caps mon = "allow *"\ncaps osd = "allow *"\n'
    return (
        f'[mon.]\nkey = {key()}\ncaps mon = "allow *"\n'
        f"[client.admin]\nkey = {key()}\n{everything}"
        f'[osd.0]\nkey = {key()}\ncaps mon = "allow profile osd"\ncaps osd = "allow *"\n'
    )


def _prepare(server: S3Server) -> None:
    for folder in ("mon", "osd"):
        (server.directory / folder).mkdir(parents=True)
    config = _CONFIG.format(fsid=uuid.uuid4(), directory=server.directory, port=server.port, mon_port=server.mon_port)
    (server.directory / "ceph.conf").write_text(config)
    (server.directory / "keyring").write_text(_keyring())


def _start(server: S3Server) -> None:
    address = f"v2:127.0.0.1:{server.mon_port}"
    osd_id = str(uuid.uuid4())
    keyring = str(server.directory / "keyring")
    server._run("ceph-mon", "-i", "a", "--mkfs", "--mon-host", address, "--public-addr", address, "--keyring", keyring)
    server._spawn("ceph-mon", "-i", "a", "-f", "--public-addr", address)
    server._wait("ceph-mon", lambda: listens(server.mon_port))
    server._run("ceph", "--connect-timeout", "30", "osd", "new", osd_id, "0")
    server._run("ceph-osd", "-i", "0", "--mkfs", "--no-mon-config", "--osd-uuid", osd_id)
    server._spawn("ceph-osd", "-i", "0", "-f")
    server._wait("ceph-osd", lambda: "1 up" in server._run("ceph", "osd", "stat"))
    server.start_gateway()
    server._run(
        "radosgw-admin", "user", "create", "--uid=edgeloop", "--display-name=edgeloop",
        f"--access-key={server.access_key}", f"--secret-key={server.secret_key}",
    )  # fmt: skip


@contextmanager
def ceph_rgw(directory: Path) -> Iterator[S3Server]:
    """A fresh S3 server with its files in a new folder of `directory`; it ends when the block is left."""
    port, mon_port = free_ports(2)
    root = Path(tempfile.mkdtemp(prefix="ceph-", dir=directory))
    server = S3Server(root, port, mon_port, secrets.token_hex(10), secrets.token_hex(20))
    try:
        _prepare(server)
        _start(server)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole test run; without Ceph's packages the test is skipped, and fails in CI."""
    if not available():
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(f"no S3 server (Ceph, as root): {S3_MISSING}")
    with ceph_rgw(tmp_path_factory.mktemp("s3")) as server:
        yield server
