"""``edgeloop serve`` as an image runs it: nobody in particular, on a disk that takes nothing."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients import broker as brokers
from edgeloop.clients.objects import DirectoryStore
from edgeloop.edge.standalone import FILES, MANIFEST
from edgeloop.fleet.rollouts.evidence import Tally
from edgeloop.fleet.rollouts.intake import hear
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.samples.cohorts import EVERYONE
from edgeloop.samples.records import now
from edgeloop.samples.releases import Release, blob_key
from edgeloop.samples.strategy import Thresholds
from edgeloop.store.database import Database
from tests.e2e.nodes import IMAGE, TABULAR, Releaser, jpeg, pets, row, until
from tests.servers.authority import Authority
from tests.servers.mosquitto import Mosquitto, Secured

pytestmark = pytest.mark.timeout(240)

#: Makes the whole root read-only for what follows, and nobody in particular of who runs it.
_ALONE = (
    "mount --make-rprivate / && mount -o remount,bind,ro / && "
    'exec setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs "$@"'
)
CONFINED = ["unshare", "--mount", "sh", "-c", _ALONE, "sh"]


@pytest.fixture
def releaser(tmp_path: Path) -> Releaser:
    return Releaser(DirectoryStore(tmp_path / "store"), tmp_path / "keys")


def pack(folder: Path, release: Release, releaser: Releaser) -> Path:
    """Write ``release`` as an image has it: anyone may read it."""
    folder.mkdir()
    (folder / MANIFEST).write_bytes(release.to_bytes())
    for layer in release.layers:
        (folder / FILES[layer.role]).write_bytes(releaser.store.get(blob_key(layer.digest)))
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


@contextmanager
def served(folder: Path, log: Path, *confined: str, **more: str) -> Iterator[str]:
    """The address of a server of ``folder``, which has ``more`` in its environment; it ends in good order."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **more}
    words = [sys.executable, "-m", "edgeloop.cli", "serve", str(folder), "--http", "127.0.0.1:0"]
    with log.open("wb") as sink:
        process = subprocess.Popen([*confined, *words], stderr=sink, stdout=sink, env=env)
    try:
        found = until(lambda: re.search(r'"port": (\d+)', log.read_text(encoding="utf-8")), "an address")
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text(encoding="utf-8")


def post(url: str, body: dict[str, Any]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=30) as answer:
        return json.loads(answer.read())


def may_confine() -> bool:
    done = subprocess.run([*CONFINED, "true"], capture_output=True, check=False)
    return done.returncode == 0


def test_on_a_read_only_disk_as_nobody_it_answers(
    releaser: Releaser, regressors: dict[int, bytes], tmp_path: Path
) -> None:
    if not may_confine():
        pytest.skip("no mounts of one's own here: run as root")
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = pack(Path(place) / "models", releaser.regressor(regressors[2]), releaser)
        assert {path.name for path in folder.iterdir()} == {MANIFEST, "model.onnx", "config.json", "probe.json"}
        with served(folder, tmp_path / "log", *CONFINED) as url:
            answer = post(f"{url}/v1/models/{TABULAR}:predict", {"instances": [json.loads(row(1))]})
    assert answer["predictions"] == [pytest.approx(3.5, abs=1e-3)]
    assert "ready" in (tmp_path / "log").read_text(encoding="utf-8")


def test_it_serves_an_image_model_in_the_words_of_v2(releaser: Releaser, shared: Path, tmp_path: Path) -> None:
    config, layers = pets(shared)
    folder = pack(tmp_path / "models", releaser.publish(config, layers, [jpeg(10)]), releaser)
    assert {"backbone.tflite", "head.npz"} <= {path.name for path in folder.iterdir()}
    picture = {"b64": base64.b64encode(jpeg(200)).decode()}
    tensor = {"name": "input", "datatype": "BYTES", "shape": [1], "data": [picture]}
    with served(folder, tmp_path / "log") as url:
        answer = post(f"{url}/v2/models/{IMAGE}/infer", {"inputs": [tensor]})
    assert answer["outputs"][0]["data"][0] in ("cat", "dog")


def test_it_tells_a_broker_that_it_must_show_itself_to_what_it_counted(
    releaser: Releaser, regressors: dict[int, bytes], tmp_path: Path
) -> None:
    release = releaser.regressor(regressors[2])
    folder, authority = pack(tmp_path / "models", release, releaser), Authority(tmp_path / "ca")
    rules = (
        f"user pods\ntopic write edgeloop/v1/nodes/+/report/{TABULAR}\nuser cloud\ntopic readwrite edgeloop/v1/nodes/#"
    )
    secured = Secured(authority.sign("server"), passwords={"pods": "p", "cloud": "c"}, acl=rules)
    roster = Roster(Database("sqlite://"))
    told = {"EDGELOOP_NODE": "edge-7", "EDGELOOP_RING": "1", "EDGELOOP_REPORT_SECONDS": "0.1"}
    with Mosquitto(tmp_path / "m", secured=secured) as server:
        trusted = f"?ca={authority.cert}"
        told["EDGELOOP_BROKER"] = server.url_for("pods", "p") + trusted
        with served(folder, tmp_path / "log", **told) as url:
            cloud = brokers.connect(server.url_for("cloud", "c") + trusted, "cloud")

            def counted() -> Tally:
                at = now()
                hear(roster, cloud, at)
                about = TABULAR, 1, release.digest, None, "", EVERYONE, Thresholds(), at
                return roster.evidence(*about).release

            body = {"instances": [json.loads(row(1))]}
            for _ in range(3):
                post(f"{url}/v1/models/{TABULAR}:predict", body)
            with pytest.raises(urllib.error.HTTPError):
                post(f"{url}/v1/models/{TABULAR}:predict", {"instances": [[1]]})
            until(lambda: (counted().answered, counted().failed) == (3, 1), "its counts")
            server.kill()
            post(f"{url}/v1/models/{TABULAR}:predict", body)
            server.start()
            until(lambda: cloud.connected and counted().answered == 4, "its counts after the broker was away")
            cloud.close()
    (seen,) = roster.rows()
    assert (seen.node, seen.ring, seen.serving, seen.online) == ("edge-7", 1, release.digest, True)


def test_reports_that_the_broker_does_not_take_are_in_the_log(
    releaser: Releaser, regressors: dict[int, bytes], tmp_path: Path
) -> None:
    folder, log = pack(tmp_path / "models", releaser.regressor(regressors[2]), releaser), tmp_path / "log"
    rules = "user pods\ntopic write edgeloop/v1/nodes/+/report/another"
    with Mosquitto(tmp_path / "m", secured=Secured(passwords={"pods": "p"}, acl=rules)) as server:
        with served(folder, log, EDGELOOP_NODE="edge-7", EDGELOOP_BROKER=server.url_for("pods", "hunter2")):
            until(
                lambda: "check user, password and its access rules" in log.read_text("utf-8"), "a word on the password"
            )
        assert "hunter2" not in log.read_text("utf-8")
        with served(folder, log, EDGELOOP_NODE="edge-7", EDGELOOP_BROKER=server.url_for("pods", "p")):
            until(lambda: "a report was refused" in log.read_text("utf-8"), "a word on its access rules")


def test_it_answers_and_ends_while_the_broker_hangs(
    releaser: Releaser, regressors: dict[int, bytes], tmp_path: Path
) -> None:
    folder, log = pack(tmp_path / "models", releaser.regressor(regressors[2]), releaser), tmp_path / "log"
    authority, told = Authority(tmp_path / "ca"), {"EDGELOOP_NODE": "edge-7", "EDGELOOP_REPORT_SECONDS": "0.1"}
    running = ExitStack()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # as of the first connection
        told["EDGELOOP_BROKER"] = f"mqtt://127.0.0.1:{silent.getsockname()[1]}"
        url = running.enter_context(served(folder, log, **told))
        answers_and_ends(silent, url, running)
    with Mosquitto(tmp_path / "m", secured=Secured(authority.sign("server"))) as server:  # and of a later one
        told["EDGELOOP_BROKER"] = f"{server.url}?ca={authority.cert}"
        url = running.enter_context(served(folder, log, **told))
        until(lambda: f"edgeloop-pod-{TABULAR}-edge-7" in (tmp_path / "m/mosquitto.log").read_text("utf-8"), "a client")
        server.kill()
        with socket.create_server(("127.0.0.1", server.port)) as silent:
            answers_and_ends(silent, url, running)


def answers_and_ends(silent: socket.socket, url: str, running: ExitStack) -> None:
    """Once it has connected to ``silent``, and waits there."""
    silent.settimeout(20)
    with silent.accept()[0]:
        assert post(f"{url}/v1/models/{TABULAR}:predict", {"instances": [json.loads(row(1))]})
        begun = time.monotonic()
        running.close()
        assert time.monotonic() - begun < 6


def test_a_flipped_bit_in_the_image_never_answers(
    releaser: Releaser, regressors: dict[int, bytes], tmp_path: Path
) -> None:
    folder = pack(tmp_path / "models", releaser.regressor(regressors[1]), releaser)
    model = bytearray((folder / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (folder / "model.onnx").write_bytes(bytes(model))
    words = [sys.executable, "-m", "edgeloop.cli", "serve", str(folder), "--http", "127.0.0.1:0"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "model.onnx is another than release.json names it" in done.stderr
