"""A release is the same image for everyone, a new head is a small change to it, and its files are all there."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.oci_memory import MemoryRegistry
from edgeloop.clients.oci_reference import UnpinnedBase, parse
from edgeloop.clients.oci_types import (
    DOCKER_MANIFEST,
    LAYER,
    MANIFEST,
    Bytes,
    DigestDiffers,
    ImageMissing,
    RegistryDenied,
    Source,
)
from edgeloop.edge import standalone
from edgeloop.release.oci.base import NoPlatform, read_base
from edgeloop.release.oci.contents import FILES, DamagedBlob, Kind, NoSavedModel
from edgeloop.release.oci.images import Artifact, Image, NoBase, build_artifact
from edgeloop.release.oci.layout import FolderTaken, Layout, parse_layout, write_layout
from edgeloop.release.oci.push import push
from edgeloop.release.oci.records import Arch, MalformedImage, Platform
from edgeloop.samples.records import digest, hexdigest
from edgeloop.samples.releases import Release, Role, Variant
from tests.unit.release.oci.make import (
    ARCHES,
    BACKBONE,
    Blobs,
    base_artifact,
    base_image,
    base_layout,
    photo_release,
    row_release,
)


def data_of(source: Source) -> bytes:
    return b"".join(source.chunks())


def unpacked(image: Image) -> dict[str, bytes]:
    """Files of all layers, upper ones over lower ones; a digest that is not of its bytes fails."""
    files: dict[str, bytes] = {}
    for layer, diff in zip(image.manifest.layers, image.config.rootfs.diff_ids, strict=True):
        data = data_of(image.blobs[layer.digest])
        assert (digest(data), len(data)) == (layer.digest, layer.size)
        tar = gzip.decompress(data) if layer.media_type.endswith("gzip") else data
        assert digest(tar) == diff
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for entry in archive:
                content = archive.extractfile(entry)
                if content:
                    files[entry.name] = content.read()
    return files


def built(release: Release, blobs: Blobs, kind: Kind = "model", arches: tuple[Arch, ...] = ARCHES) -> Artifact:
    return build_artifact(release, kind, arches, {}, blobs.read)


def test_an_image_has_the_files_of_the_release() -> None:
    blobs = Blobs()
    release = photo_release(blobs)
    made = built(release, blobs)
    assert [image.config.architecture for image in made.images] == ["amd64", "arm64"]
    for image in made.images:
        assert unpacked(image) == {
            "models/backbone.tflite": BACKBONE,
            "models/config.json": b"{}",
            "models/head.npz": b"head",
            "models/probe.json": b"[]",
            "models/release.json": release.to_bytes(),
        }
    assert len(blobs.reads) == len(set(blobs.reads)), "both images are made of one reading"


def test_a_tabular_release_has_its_own() -> None:
    blobs = Blobs()
    found = unpacked(built(row_release(blobs), blobs).images[0])
    assert sorted(found) == [f"models/{n}" for n in ("config.json", "model.onnx", "probe.json", "release.json")]


def test_the_records_are_as_the_specification_has_them() -> None:
    blobs = Blobs()
    release = photo_release(blobs)
    made = built(release, blobs)
    index: dict[str, Any] = json.loads(made.index.to_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    assert [m["platform"] for m in index["manifests"]] == [{"architecture": a, "os": "linux"} for a in ARCHES]
    assert index["annotations"]["edgeloop.release"] == release.digest
    manifest = json.loads(made.images[0].manifest.to_bytes())
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} == {LAYER}
    config = json.loads(made.images[0].config.to_bytes())
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"] for layer in manifest["layers"]]}
    assert len(config["history"]) == len(manifest["layers"])
    assert config["created"] == "1970-01-01T00:00:00Z"


def test_the_same_release_is_the_same_image() -> None:
    one, other = Blobs(), Blobs()
    assert built(photo_release(one), one).digest == built(photo_release(other), other).digest


def test_the_digest_is_that_of_every_build_before() -> None:
    """Written down: another way of writing records or layers would send everything to every place again."""
    blobs = Blobs()
    assert (
        built(photo_release(blobs), blobs).digest
        == "sha256:31ddf912a688cad3b48656500e597359b0b7040e24fc5a24d1d78960630dd8a9"
    )


_CONTENTS = st.fixed_dictionaries({role: st.binary(max_size=9) for role in ("backbone", "head", "config", "probe")})


@given(_CONTENTS, _CONTENTS)
def test_only_layers_with_other_files_change(old: dict[Role, bytes], new: dict[Role, bytes]) -> None:
    blobs, made = Blobs(), []
    for contents in (old, new):
        release = photo_release(blobs).model_copy(update={"layers": blobs.layers(contents)})
        made.append([layer.digest for layer in built(release, blobs).images[0].manifest.layers])
    same = [a == b for a, b in zip(*made, strict=True)]
    assert same == [*(old[role] == new[role] for role in ("backbone", "config", "head")), old == new]


def test_a_new_head_leaves_the_backbone_where_it_is() -> None:
    blobs = Blobs()
    old, new = built(photo_release(blobs), blobs), built(photo_release(blobs, "2", b"other head"), blobs)
    assert old.images[0].manifest.layers[:2] == new.images[0].manifest.layers[:2]
    changed = {name: source for name, source in new.blobs.items() if name not in old.blobs}
    assert len(changed) == 4, "head, probe with manifest, and two configurations"
    assert sum(source.size for source in changed.values()) < 30_000


def variant(blobs: Blobs, profile: str, backbone: bytes, runtime: Any = "litert") -> Variant:
    layers = blobs.layers({"backbone": backbone, "head": b"head", "config": b"{}", "probe": b"own"})
    return Variant(profile=profile, runtime=runtime, precision="float16", layers=layers, agreement=1, compared=9)


def test_each_cpu_has_its_own_variant() -> None:
    blobs = Blobs()
    others = variant(blobs, "generic-arm64", b"half"), variant(blobs, "raspberry-pi-4", b"eighth")
    amd, arm = built(photo_release(blobs, variants=others), blobs).images
    assert unpacked(amd)["models/backbone.tflite"] == BACKBONE
    assert unpacked(arm)["models/backbone.tflite"] == b"half"
    assert unpacked(arm)["models/probe.json"] == b"own"
    assert amd.manifest.layers[2] == arm.manifest.layers[2], "the head is the same"


def test_a_variant_that_no_node_runs_is_not_taken_for_the_cpus_own() -> None:
    """A profile of any name may have any runtime; a predictor runs what a node runs."""
    blobs = Blobs()
    served = variant(blobs, "generic-amd64", b"a graph", runtime="savedmodel")
    [amd] = built(photo_release(blobs, variants=[served]), blobs, arches=("amd64",)).images
    assert unpacked(amd)["models/backbone.tflite"] == BACKBONE


def test_a_node_finds_the_release_and_its_variant_in_what_was_packed(tmp_path: Path) -> None:
    names = {str(role): name for role, name in standalone.FILES.items()}
    assert {**names, "release": standalone.MANIFEST} == FILES
    blobs = Blobs()
    release = photo_release(blobs, variants=[variant(blobs, "generic-arm64", b"half")])
    for image, profile in zip(built(release, blobs).images, (None, "generic-arm64"), strict=True):
        folder = tmp_path / image.config.architecture
        (folder / "models").mkdir(parents=True)
        for path, data in unpacked(image).items():
            (folder / path).write_bytes(data)
        packed = standalone.read_packed(folder / "models")
        assert (packed.release.digest, packed.profile) == (release.digest, profile)


def test_a_saved_model_lies_where_tensorflow_serving_looks(tmp_path: Path) -> None:
    from edgeloop.exports.savedmodel import pack

    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "variables.index").write_bytes(b"weights")
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    blobs = Blobs()
    parts = pack(tmp_path)
    layers = blobs.layers({"backbone": parts["backbone"], "model": parts["model"], "config": b"{}", "probe": b"own"})
    served = Variant(
        profile="tf-serving", runtime="savedmodel", precision="float32", layers=layers, agreement=1, compared=9
    )
    release = photo_release(blobs, variants=[served])
    made = built(release, blobs, "savedmodel")
    assert unpacked(made.images[0]) == {
        "models/1/variables/variables.index": b"weights",
        "models/1/saved_model.pb": b"graph",
        "models/release.json": release.to_bytes(),
    }
    with pytest.raises(NoSavedModel, match=r"has no SavedModel: add a profile with runtime savedmodel"):
        built(photo_release(blobs), blobs, "savedmodel")


def test_a_damaged_blob_never_gets_into_an_image() -> None:
    blobs = Blobs()
    release = photo_release(blobs)
    name = release.layers[1].digest
    blobs.held[name] = b"heaD"
    with pytest.raises(DamagedBlob, match=f"head of release {release.digest} has other bytes than its name {name}"):
        built(release, blobs)


# --- on a base


def test_a_predictor_runs_the_node_over_its_base(tmp_path: Path) -> None:
    blobs = Blobs()
    base = base_layout(tmp_path / "base")
    bases = {arch: read_base(Layout(tmp_path / "base"), "", base.digest, arch) for arch in ARCHES}
    made = build_artifact(photo_release(blobs), "predictor", ARCHES, bases, blobs.read)
    for arch, image, below in zip(ARCHES, made.images, base.images, strict=True):
        assert image.manifest.layers[0].digest == below.manifest.layers[0].digest
        files = unpacked(image)
        assert files["etc/runtime"] == b"runtime" + arch.encode()
        assert files["models/head.npz"] == b"head"
        config = image.config.config
        assert config["Entrypoint"] == ["edgeloop", "serve", "/models"]
        assert (config["User"], config["WorkingDir"]) == ("10001:10001", "/var")
        assert config["Env"] == below.config.config["Env"]
        assert config["Cmd"] == ["--http", "0.0.0.0:8080", "--open"]
        notes = image.manifest.annotations or {}
        assert notes["org.opencontainers.image.base.digest"] == base.digest
    with pytest.raises(NoBase, match=r"needs a runtime to run on: give --base"):
        built(photo_release(blobs), blobs, "predictor")


def test_a_user_of_the_base_that_is_not_root_stays() -> None:
    from edgeloop.release.oci.images import _run_config

    assert _run_config("predictor", {"User": "4242"}, {})["User"] == "4242"
    for root in ("", "0", "0:0", "root", "app"):
        assert _run_config("predictor", {"User": root}, {})["User"] == "10001:10001"
    assert _run_config("model", {"User": "0", "Cmd": ["sh"]}, {"a": "b"}) == {
        "User": "0",
        "Cmd": ["sh"],
        "Labels": {"a": "b"},
    }


def test_a_base_of_docker_gets_the_names_of_oci() -> None:
    registry, image = MemoryRegistry(), base_image("amd64")
    for name, source in image.blobs.items():
        registry.upload("runtime", name, source)
    old = image.manifest.model_copy(
        update={
            "media_type": DOCKER_MANIFEST,
            "layers": [
                layer.model_copy(update={"media_type": "application/vnd.docker.image.rootfs.diff.tar.gzip"})
                for layer in image.manifest.layers
            ],
        }
    )
    name = registry.put_manifest("runtime", "1", old.to_bytes(), DOCKER_MANIFEST)
    base = read_base(registry, "runtime", name, "amd64")
    assert [layer.media_type for layer in base.layers] == [f"{LAYER}+gzip"]
    with pytest.raises(NoPlatform, match=r"not for linux/arm64, only for linux/amd64:.*--arch"):
        read_base(registry, "runtime", name, "arm64")


def test_a_base_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    made = base_layout(tmp_path / "base", ("amd64",))
    layout = Layout(tmp_path / "base")
    with pytest.raises(NoPlatform, match=rf"oci:.*@{made.digest} is not for linux/arm64, only for linux/amd64"):
        read_base(layout, "", made.digest, "arm64")
    with pytest.raises(ImageMissing, match="has no image sha256:0000"):
        read_base(layout, "", "sha256:" + "0" * 64, "amd64")
    with pytest.raises(MalformedImage, match="name the digest of an image"):
        read_base(layout, "", made.images[0].manifest.layers[0].digest, "amd64")
    with pytest.raises(UnpinnedBase, match="has no digest"):
        parse_layout("oci:folder:tag")
    assert parse_layout(f"oci:a@b@{made.digest}") == (Path("a@b"), made.digest)


def test_an_image_whose_layers_and_digests_differ_in_number_is_no_base() -> None:
    registry, image = MemoryRegistry(), base_image("amd64")
    for name, source in image.blobs.items():
        registry.upload("runtime", name, source)
    short = image.manifest.model_copy(update={"layers": []})
    name = registry.put_manifest("runtime", "1", short.to_bytes(), MANIFEST)
    with pytest.raises(MalformedImage, match="0 layers and digests of 1"):
        read_base(registry, "runtime", name, "amd64")


def test_a_flipped_bit_in_a_base_goes_nowhere(tmp_path: Path) -> None:
    blobs, registry = Blobs(), MemoryRegistry()
    base = base_layout(tmp_path / "base")
    bases = {arch: read_base(Layout(tmp_path / "base"), "", base.digest, arch) for arch in ARCHES}
    made = build_artifact(photo_release(blobs), "predictor", ARCHES, bases, blobs.read)
    lowest = made.images[0].manifest.layers[0].digest
    path = tmp_path / "base" / "blobs" / "sha256" / hexdigest(lowest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DigestDiffers, match=lowest):
        push(registry, parse("registry.test/a"), made, "1")
    assert registry.manifest("a", "1") is None
    with pytest.raises(DigestDiffers, match=lowest):
        write_layout(tmp_path / "out", made, "1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


# --- layouts


def test_a_layout_is_written_once_and_reads_back(tmp_path: Path) -> None:
    blobs = Blobs()
    made = built(photo_release(blobs), blobs)
    assert write_layout(tmp_path / "new" / "out", made, "7")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*")}
    assert not write_layout(tmp_path / "new" / "out", made, "7")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("*")} == before
    layout = Layout(tmp_path / "new" / "out")
    assert (
        layout.manifest("", "7") == layout.manifest("", made.digest) == (made.index.to_bytes(), made.index.media_type)
    )
    assert layout.manifest("", "8") is None
    for name, source in made.blobs.items():
        assert b"".join(layout.blob("", name)) == data_of(source)
    assert json.loads((tmp_path / "new" / "out" / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    blobs = Blobs()
    made = built(photo_release(blobs), blobs)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder in ("notes", "file", "file/below"):
        with pytest.raises(FolderTaken, match="name a"):
            write_layout(tmp_path / folder, made, "7")
    write_layout(tmp_path / "out", made, "7")
    with pytest.raises(FolderTaken, match="holds something else"):
        write_layout(tmp_path / "out", built(photo_release(blobs, "2"), blobs), "7")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "notes", "out"]


# --- pushing


class Breaking(MemoryRegistry):
    """Lets nobody do more than ``left`` things."""

    left = 0

    def _enter(self, method: str, repository: str) -> None:
        if self.left == 0:
            raise RegistryDenied("no more")
        self.left -= 1
        super()._enter(method, repository)


def test_a_push_that_ends_anywhere_names_nothing_and_is_finished_by_the_next() -> None:
    blobs = Blobs()
    made = built(photo_release(blobs), blobs)
    target, steps = parse("registry.test/a"), 0
    while True:
        registry = Breaking()
        registry.left = steps
        try:
            push(registry, target, made, "1")
            break
        except RegistryDenied:
            registry.left = 1000
            assert registry.manifest("a", "1") is None
            assert push(registry, target, made, "1").digest == made.digest
            assert registry.manifest("a", "1") == (made.index.to_bytes(), made.index.media_type)
        steps += 1
    assert steps > 2 * len(made.blobs)


def test_a_tag_moves_to_what_was_pushed_last() -> None:
    blobs, registry, target = Blobs(), MemoryRegistry(), parse("registry.test/a")
    old, new = built(photo_release(blobs), blobs), built(photo_release(blobs, "2"), blobs)
    assert push(registry, target, old, "stable").tagged
    assert push(registry, target, new, "stable").tagged
    assert registry.manifest("a", old.digest) is not None
    assert push(registry, target, old, "stable").tagged


def test_platforms_that_are_not_named_are_passed_over() -> None:
    registry = MemoryRegistry()
    made = base_artifact(("amd64",))
    push(registry, parse("registry.test/runtime"), made, "1")
    unknown = made.index.manifests[0].model_copy(update={"platform": Platform(architecture="unknown", os="unknown")})
    listed = made.index.model_copy(update={"manifests": [unknown, *made.index.manifests]})
    name = registry.put_manifest("runtime", "2", listed.to_bytes(), listed.media_type)
    assert read_base(registry, "runtime", name, "amd64").layers == tuple(made.images[0].manifest.layers)


def test_sources_can_be_read_again(tmp_path: Path) -> None:
    sources: Mapping[str, Source] = {"a": Bytes(b"x")}
    assert [data_of(sources["a"]) for _ in range(2)] == [b"x", b"x"]
    made = base_layout(tmp_path / "base")
    base = read_base(Layout(tmp_path / "base"), "", made.digest, "amd64")
    (source,) = base.sources.values()
    assert len(data_of(source)) == len(data_of(source)) == source.size
