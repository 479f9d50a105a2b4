"""What others make of our images: skopeo copies them bit by bit, buildah unpacks them, docker-registry keeps them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.oci_reference import parse
from edgeloop.clients.oci_registry import HttpRegistry
from edgeloop.release.oci.base import read_base
from edgeloop.release.oci.contents import Kind
from edgeloop.release.oci.images import Artifact, build_artifact
from edgeloop.release.oci.layout import Layout, write_layout
from edgeloop.release.oci.push import push
from edgeloop.samples.releases import Release
from tests.conftest import need
from tests.servers.registry import DockerRegistry, docker_registry
from tests.unit.release.oci.make import ARCHES, BACKBONE, Blobs, base_layout, photo_release


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


def run(*command: str) -> str:
    need(shutil.which(command[0]) is not None, f"{command[0]} is not installed: apt-get install -y {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-600:]}"
    return done.stdout


def made(folder: Path, kind: Kind) -> tuple[Artifact, Release]:
    """An artifact of a photo release, on a base of its own where it needs one."""
    blobs = Blobs()
    release = photo_release(blobs)
    bases = {}
    if kind == "predictor":
        base = base_layout(folder / "base")
        bases = {arch: read_base(Layout(folder / "base"), "", base.digest, arch) for arch in ARCHES}
    return build_artifact(release, kind, ARCHES, bases, blobs.read), release


def pushed(server: DockerRegistry, repository: str, artifact: Artifact) -> str:
    """Its reference by digest."""
    with closing(HttpRegistry(server.name)) as client:
        return push(client, parse(f"{server.name}/{repository}"), artifact, "1").reference


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "blobs" / "sha256").iterdir()}


@pytest.mark.parametrize("kind", ["model", "predictor"])
def test_skopeo_copies_what_we_pushed_and_it_is_our_layout_byte_for_byte(
    docker: DockerRegistry, tmp_path: Path, kind: Kind
) -> None:
    artifact, _ = made(tmp_path, kind)
    reference = pushed(docker, f"copied/{kind}", artifact)
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
    assert raw.encode() == artifact.index.to_bytes()
    there, ours = tmp_path / "there", tmp_path / "ours"
    copy = ("skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--insecure-policy")
    run(*copy, f"docker://{reference}", f"oci:{there}:1")
    write_layout(ours, artifact, "1")
    assert files(there) == files(ours)
    assert len(files(ours)) == len(artifact.blobs) + len(artifact.images) + 1


def test_skopeo_puts_our_layout_into_a_registry_under_our_digests(docker: DockerRegistry, tmp_path: Path) -> None:
    artifact, _ = made(tmp_path, "predictor")
    write_layout(tmp_path / "ours", artifact, "7-predictor")
    copy = ("skopeo", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "--insecure-policy")
    run(*copy, f"oci:{tmp_path / 'ours'}:7-predictor", f"docker://{docker.name}/from-layout:7")
    with closing(HttpRegistry(docker.name)) as client:
        assert client.manifest("from-layout", artifact.digest) == client.manifest("from-layout", "7")


def test_skopeo_reads_an_image_for_each_cpu(docker: DockerRegistry, tmp_path: Path) -> None:
    artifact, release = made(tmp_path, "predictor")
    reference = pushed(docker, "inspected", artifact)
    for arch in ARCHES:
        inspect = ("skopeo", f"--override-arch={arch}", "inspect", "--tls-verify=false", f"docker://{reference}")
        said: dict[str, Any] = json.loads(run(*inspect))
        assert said["Architecture"] == arch
        assert said["Labels"]["edgeloop.release"] == release.digest
        config = json.loads(run(*inspect[:3], "--config", *inspect[3:]))
        assert config["config"]["Entrypoint"] == ["edgeloop", "serve", "/models"]
        assert config["config"]["User"] == "10001:10001"
        assert config["config"]["Cmd"] == ["--http", "0.0.0.0:8080", "--open"]


@contextmanager
def unpacked(folder: Path, reference: str, arch: str) -> Iterator[Path]:
    """The root of a container made of an image."""
    need(os.geteuid() == 0, "unpacking an image needs root")
    buildah = ("buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs")
    policy = folder / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    options = ("--isolation", "chroot", "--tls-verify=false", "--arch", arch, "--signature-policy", str(policy))
    name = run(*buildah, "from", *options, reference).strip()
    try:
        yield Path(run(*buildah, "mount", name).strip())
    finally:
        run(*buildah, "umount", name)
        run(*buildah, "rm", name)


@pytest.mark.parametrize("arch", ARCHES)
def test_buildah_unpacks_the_release_over_its_base(docker: DockerRegistry, tmp_path: Path, arch: str) -> None:
    artifact, release = made(tmp_path, "predictor")
    reference = pushed(docker, f"unpacked/{arch}", artifact)
    with unpacked(tmp_path, f"docker://{reference}", arch) as root:
        assert (root / "etc" / "runtime").read_bytes() == b"runtime" + arch.encode()
        models = root / "models"
        found = {p.name: p.read_bytes() for p in models.iterdir()}
        assert found == {
            "backbone.tflite": BACKBONE,
            "head.npz": b"head",
            "config.json": b"{}",
            "probe.json": b"[]",
            "release.json": release.to_bytes(),
        }
        assert models.stat().st_mode & 0o777 == 0o755
        assert all(p.stat().st_mode & 0o777 == 0o644 and p.stat().st_mtime == 0 for p in models.iterdir())
