"""From a released version to an image in a registry that starts as a cluster would start it, and answers.

The runtime under it is a folder tree with this interpreter mounted into it: what is shown is that the image says
itself how it is run, as whom and with which files, and that the registry gave back what was released.
"""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from edgeloop.bootstrap import App
from edgeloop.clients.oci_types import CONFIG, LAYER, Bytes
from edgeloop.clients.registry import ModelVersion
from edgeloop.learning.tabular import fit_pipeline, to_onnx
from edgeloop.release.build import build_release
from edgeloop.release.oci.images import Artifact, Image
from edgeloop.release.oci.layout import write_layout
from edgeloop.release.oci.records import Descriptor, ImageConfig, Index, Manifest, RootFs
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import digest
from edgeloop.samples.releases import blob_key
from edgeloop.settings import load_settings
from tests.conftest import ROOT, need
from tests.e2e.cli import edgeloop, result_of
from tests.servers.ports import free_port, wait_until
from tests.servers.registry import docker_registry
from tests.unit.samples.make import regressor

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
#: Where this interpreter and its libraries are; mounted, since a copy of them is some hundred megabytes.
MOUNTED = sorted({"/usr", "/lib", "/lib64", sys.base_prefix, sys.prefix, str(ROOT)})


def program_layer() -> bytes:
    """Empty folders for what is mounted, and the program under the name that an image starts."""
    script = f"#!{sys.executable}\nfrom edgeloop.cli import main\nmain()\n".encode()
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for folder in ("tmp", "proc", "dev", "sys", "etc", *(place.lstrip("/") for place in MOUNTED)):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        program = tarfile.TarInfo("opt/bin/edgeloop")
        program.size, program.mode = len(script), 0o755
        tar.addfile(program, io.BytesIO(script))
    return sink.getvalue()


def runtime(folder: Path) -> str:
    """A base in a layout; its name for ``--base``."""
    layer = program_layer()
    env = ["PATH=/opt/bin:/usr/bin:/bin", f"PYTHONPATH={ROOT}", "PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp"]
    config = ImageConfig(architecture=ARCH, config={"Env": env}, rootfs=RootFs(diff_ids=[digest(layer)]))
    data = config.to_bytes()
    manifest = Manifest(
        config=Descriptor(media_type=CONFIG, digest=digest(data), size=len(data)),
        layers=[Descriptor(media_type=LAYER, digest=digest(layer), size=len(layer))],
    )
    image = Image(manifest, config, {digest(layer): Bytes(layer)})
    artifact = Artifact(Index(manifests=[image.descriptor]), (image,))
    write_layout(folder, artifact, "runtime")
    return f"oci:{folder}@{artifact.digest}"


def released(home: Path, onnx: bytes) -> str:
    """A release of wine-rater in the home, with a probe of its own; its digest."""
    service = regressor(name="wine-rater")
    app = App(load_settings(home, {}))
    version = ModelVersion(
        service="wine-rater", version="3", run_id="run", key="key", dataset="sha256:d", layers={"model": digest(onnx)}
    )
    app.store.create(blob_key(digest(onnx)), onnx)
    release = build_release(app.store, service, version, [encode_features([1, 2])], {})
    app.fleet.add_release("wine-rater", "3", release.digest)
    app.channel.approve("wine-rater", release.digest)
    app.fleet.close()
    return release.digest


class Container:
    """A container made of an image, unpacked by buildah and isolated by a chroot."""

    def __init__(self, folder: Path, reference: str) -> None:
        self._store = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
        policy = folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        options = ["--isolation", "chroot", "--tls-verify=false", "--signature-policy", str(policy)]
        self.name = self.buildah("from", *options, f"docker://{reference}").strip()

    def buildah(self, command: str, *words: str) -> str:
        full = ["buildah", *self._store, command, *words]
        done = subprocess.run(full, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr[-1000:]
        return done.stdout

    @contextmanager
    def running(self, words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
        mounts = [word for place in MOUNTED for word in ("-v", f"{place}:{place}:ro")]
        command = ["buildah", *self._store, "run", "--isolation", "chroot", *mounts, self.name, "--", *words]
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(15)


def test_a_predictor_starts_as_its_image_says_and_answers(tmp_path: Path, onnx: bytes) -> None:
    for program in ("buildah", "docker-registry"):
        need(shutil.which(program) is not None, f"{program} is not installed: apt-get install -y {program}")
    need(os.geteuid() == 0 and bool(ARCH), "unpacking an image needs root, on amd64 or arm64")
    home = tmp_path / "home"
    release = released(home, onnx)
    with docker_registry(tmp_path / "registry") as registry:
        image = f"{registry.name}/predictors/wine-rater"
        options = ("--kind", "predictor", "--base", runtime(tmp_path / "runtime"), "--arch", ARCH)
        pushed = result_of(edgeloop("release", "push", "wine-rater", image, *options, home=home))
        assert pushed["release"] == release
        container = Container(tmp_path, pushed["reference"])
        config = json.loads(container.buildah("inspect", container.name))["OCIv1"]["config"]
        assert config["Cmd"] == ["--http", "0.0.0.0:8080", "--open"]
        port = free_port()
        words = [*config["Entrypoint"], "--http", f"127.0.0.1:{port}"]
        log = tmp_path / "log"
        url = f"http://127.0.0.1:{port}"
        with container.running(words, log) as process, httpx.Client(base_url=url, timeout=60) as client:

            def ready() -> bool:
                assert process.poll() is None, log.read_text()[-2000:]
                try:
                    return client.get("/v2/health/ready").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until("the predictor", ready, seconds=40)
            status = next(line for p in serving(port) for line in p.read_text().splitlines() if line.startswith("Uid:"))
            assert status.split()[1:] == ["10001"] * 4, "nobody, and not root"
            inputs = [{"name": "input", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}]
            answer = client.post("/v2/models/wine-rater/infer", json={"inputs": inputs})
            assert answer.status_code == 200, answer.text
            assert answer.json()["outputs"]


def serving(port: int) -> Iterator[Path]:
    """``status`` of the processes that serve on ``port``."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if f"127.0.0.1:{port}" in words and words[0].endswith(("python", "python3", "python3.11")):
            yield folder / "status"


@pytest.fixture(scope="module")
def onnx() -> bytes:
    rows = np.random.default_rng(0).uniform(0, 10, (40, 2)).astype(np.float32)
    return to_onnx(fit_pipeline(regressor(), rows, [str(float(a + b) / 2) for a, b in rows], 0), 2)
