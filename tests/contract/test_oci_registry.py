"""What every image registry does, on the one in memory and on a real docker-registry alike."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeloop.clients.oci_memory import MemoryRegistry
from edgeloop.clients.oci_reference import parse
from edgeloop.clients.oci_registry import HttpRegistry
from edgeloop.clients.oci_types import (
    INDEX,
    MANIFEST,
    Bytes,
    DigestDiffers,
    ImageMissing,
    Registry,
    RegistryDenied,
    RegistryRefused,
    RegistryUnavailable,
)
from edgeloop.release.oci.base import read_base
from edgeloop.release.oci.images import build_artifact
from edgeloop.release.oci.push import push
from edgeloop.samples.records import digest
from tests.servers.registry import PASSWORD, USER, DockerRegistry, docker_registry
from tests.unit.release.oci.make import ARCHES, BACKBONE, Blobs, base_artifact, photo_release


@dataclass(frozen=True)
class Case:
    """A registry, and a repository in it that is this test's own."""

    registry: Registry
    repository: str


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(params=["memory", "docker"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    repository = f"models/{abs(hash(request.node.name)):x}"
    if request.param == "memory":
        yield Case(MemoryRegistry(), repository)
        return
    client = HttpRegistry(request.getfixturevalue("docker").name, piece=100_000, timeout=10, pause=0.01)
    yield Case(client, repository)
    client.close()


def test_a_blob_comes_back_as_it_was_sent(case: Case) -> None:
    for data in (b"", b"small", BACKBONE):
        name = digest(data)
        assert not case.registry.has_blob(case.repository, name)
        case.registry.upload(case.repository, name, Bytes(data))
        assert case.registry.has_blob(case.repository, name)
        assert b"".join(case.registry.blob(case.repository, name)) == data
        case.registry.upload(case.repository, name, Bytes(data))


@pytest.mark.parametrize("size", [10, 250_000])
def test_a_blob_under_another_digest_is_refused(case: Case, size: int) -> None:
    name = digest(b"something else")
    with pytest.raises(DigestDiffers, match=name[:20]):
        case.registry.upload(case.repository, name, Bytes(b"x" * size))
    assert not case.registry.has_blob(case.repository, name)


def test_what_is_not_there_is_said(case: Case) -> None:
    name = digest(b"nobody has this")
    assert case.registry.manifest(case.repository, "latest") is None
    assert case.registry.manifest(case.repository, name) is None
    with pytest.raises(ImageMissing, match=name):
        list(case.registry.blob(case.repository, name))


def test_a_blob_of_another_repository_is_mounted(case: Case) -> None:
    name = digest(b"layer")
    case.registry.upload(f"{case.repository}/origin", name, Bytes(b"layer"))
    assert case.registry.mount(case.repository, name, f"{case.repository}/origin")
    assert case.registry.has_blob(case.repository, name)
    assert not case.registry.mount(case.repository, digest(b"other"), f"{case.repository}/origin")


def test_a_manifest_that_names_what_is_missing_is_refused(case: Case) -> None:
    made = base_artifact()
    with pytest.raises(RegistryRefused):
        case.registry.put_manifest(case.repository, "v1", made.images[0].manifest.to_bytes(), MANIFEST)
    with pytest.raises(RegistryRefused):
        case.registry.put_manifest(case.repository, "v1", made.index.to_bytes(), INDEX)
    assert case.registry.manifest(case.repository, "v1") is None


def test_a_manifest_under_another_digest_is_refused(case: Case) -> None:
    image = base_artifact().images[0]
    for name, source in image.blobs.items():
        case.registry.upload(case.repository, name, source)
    with pytest.raises(RegistryRefused):
        case.registry.put_manifest(case.repository, digest(b"?"), image.manifest.to_bytes(), MANIFEST)


def test_a_push_is_whole_and_a_second_one_sends_nothing(case: Case) -> None:
    blobs = Blobs()
    made = build_artifact(photo_release(blobs), "model", ARCHES, {}, blobs.read)
    target = parse(f"{case.registry.name}/{case.repository}")
    first = push(case.registry, target, made, "1")
    assert first.reference == f"{case.registry.name}/{case.repository}@{made.digest}"
    assert (first.sent, first.skipped, first.mounted, first.tagged) == (len(made.blobs), 0, 0, True)
    assert first.sent_bytes > len(BACKBONE)
    for reference in ("1", made.digest):
        assert case.registry.manifest(case.repository, reference) == (made.index.to_bytes(), INDEX)
    for one in made.index.manifests:
        found = case.registry.manifest(case.repository, one.digest)
        assert found is not None and found[1] == MANIFEST
        named = json.loads(found[0])
        assert all(case.registry.has_blob(case.repository, x["digest"]) for x in [named["config"], *named["layers"]])
    again = push(case.registry, target, made, "1")
    assert (again.sent, again.sent_bytes, again.skipped, again.tagged) == (0, 0, len(made.blobs), False)
    assert again.reference == first.reference


def test_a_new_head_sends_little(case: Case) -> None:
    blobs = Blobs()
    target = parse(f"{case.registry.name}/{case.repository}")
    push(case.registry, target, build_artifact(photo_release(blobs), "model", ARCHES, {}, blobs.read), "1")
    newer = build_artifact(photo_release(blobs, "2", b"another head"), "model", ARCHES, {}, blobs.read)
    pushed = push(case.registry, target, newer, "2")
    assert pushed.sent == 4, "head, probe with manifest, and a configuration for each CPU"
    assert pushed.sent_bytes < 30_000 < len(BACKBONE)


def test_a_predictor_takes_the_layers_of_its_base_where_they_are(case: Case) -> None:
    blobs = Blobs()
    base = base_artifact()
    runtime = f"{case.repository}/runtime"
    push(case.registry, parse(f"{case.registry.name}/{runtime}"), base, "latest")
    bases = {arch: read_base(case.registry, runtime, base.digest, arch) for arch in ARCHES}
    made = build_artifact(photo_release(blobs), "predictor", ARCHES, bases, blobs.read)
    pushed = push(case.registry, parse(f"{case.registry.name}/{case.repository}"), made, "1")
    assert pushed.mounted == 2
    assert pushed.sent + pushed.mounted == len(made.blobs)
    lowest = made.images[0].manifest.layers[0].digest
    assert b"".join(case.registry.blob(case.repository, lowest)) == b"".join(base.images[0].layers[lowest].chunks())


def test_a_push_to_another_registry_carries_the_base(docker: DockerRegistry) -> None:
    blobs = Blobs()
    base, memory = base_artifact(), MemoryRegistry()
    client = HttpRegistry(docker.name)
    push(client, parse(f"{docker.name}/runtime"), base, "latest")
    bases = {arch: read_base(client, "runtime", base.digest, arch) for arch in ARCHES}
    made = build_artifact(photo_release(blobs), "predictor", ARCHES, bases, blobs.read)
    pushed = push(memory, parse("registry.test/models/rater"), made, "1")
    assert (pushed.mounted, pushed.sent) == (0, len(made.blobs))
    client.close()


# --- who may


def logins(folder: Path, registry: str, password: str) -> Path:
    import base64

    path = folder / "auth.json"
    secret = base64.b64encode(f"{USER}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry: {"auth": secret}}}))
    return path


def test_a_registry_that_asks_lets_in_who_has_logged_in_and_nobody_else(tmp_path: Path) -> None:
    name = digest(b"x")
    with docker_registry(tmp_path / "server", asks=True) as server:
        known = HttpRegistry(server.name, logins(tmp_path, server.name, PASSWORD))
        known.upload("models/rater", name, Bytes(b"x"))
        assert known.has_blob("models/rater", name)
        known.close()
        wrong = HttpRegistry(server.name, logins(tmp_path, server.name, "guess"))
        with pytest.raises(
            RegistryDenied, match=rf"{server.name} refused HEAD in models/rater \(401.*skopeo login"
        ) as no:
            wrong.has_blob("models/rater", name)
        assert "guess" not in str(no.value)
        assert USER not in str(no.value)
        wrong.close()
        nobody = HttpRegistry(server.name, tmp_path / "none.json")
        with pytest.raises(RegistryDenied, match=rf"{server.name} asks who is there for models/rater.*skopeo login"):
            nobody.upload("models/rater", name, Bytes(b"x"))
        nobody.close()


def test_a_registry_that_is_away_is_said_and_the_push_is_finished_later(tmp_path: Path) -> None:
    blobs = Blobs()
    made = build_artifact(photo_release(blobs), "model", ARCHES, {}, blobs.read)
    with docker_registry(tmp_path / "server") as server:
        client = HttpRegistry(server.name, timeout=30)
        for name, source in list(made.blobs.items())[:2]:
            client.upload("models/rater", name, source)
        server.stop()
        target = parse(f"{server.name}/models/rater")
        with pytest.raises(RegistryUnavailable, match=server.name):
            push(client, target, made, "1")
        server.start()
        pushed = push(client, target, made, "1")
        assert (pushed.skipped, pushed.sent) == (2, len(made.blobs) - 2)
        client.close()


def test_certificates_of_the_system_are_believed_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.servers.authority import Authority

    authority = Authority(tmp_path / "authority")
    with docker_registry(tmp_path / "server", tls=authority.sign("registry")) as server:
        stranger = HttpRegistry(server.name)
        with pytest.raises(RegistryUnavailable, match=r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"):
            stranger.has_blob("models/rater", digest(b"x"))
        stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
        trusting = HttpRegistry(server.name)
        trusting.upload("models/rater", digest(b"x"), Bytes(b"x"))
        assert trusting.has_blob("models/rater", digest(b"x"))
        trusting.close()
