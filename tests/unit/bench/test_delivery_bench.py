"""What the delivery bench counts is what is read, its deltas are deltas, and its claims can be missed."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.bench.delivery import deltas, image, models
from edgeloop.bench.delivery.counted import CountedStore
from edgeloop.bench.delivery.deltas import bsdiff_delta, gzip_size, zstd_apply, zstd_delta, zstd_size
from edgeloop.bench.delivery.models import Line, NoWeights, fine_tuned, make_line
from edgeloop.bench.delivery.result import LIMIT, Change, DeliveryBench, Sizes, Travelled, delivery_text
from edgeloop.bench.delivery.travel import Fleet, NothingServes, Site
from edgeloop.cli import main
from edgeloop.clients.models import read_backbone
from edgeloop.clients.objects import MemoryStore
from edgeloop.fleet.approvals import APPROVED
from edgeloop.release.oci.layout import Layout
from edgeloop.release.oci.records import Arch
from edgeloop.samples.profiles import list_profiles
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Release, Variant, blob_key, metadata_key
from tests.conftest import ROOT
from tests.unit.release.oci.make import base_layout

ARCH: Arch = "amd64"
PROFILES = list_profiles([ROOT / "deployments" / "profiles"])


@pytest.fixture(scope="module")
def extractor(shared: Path) -> Path:
    return shared / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"


# --- what is counted


def test_every_read_is_counted_under_what_it_is() -> None:
    store = MemoryStore()
    sizes = {
        "channel/timestamp.json": 1, "channel/7.snapshot.json": 2, "channel/2.root.json": 4,
        "channel/3.releases.json": 8, "channel/9.releases-rater.json": 16, "channel/12.rings-rater.json": 32,
        "channel/targets/rings/rater/ab.ring-0.json": 64, "releases/rater/cd.json": 128,
        blob_key(digest(b"h")): 256, blob_key(digest(b"?")): 512,
    }  # fmt: skip
    for key, size in sizes.items():
        store.put(key, bytes(size))
    counted = CountedStore(store, {digest(b"h"): "head"})
    for key in sizes:
        counted.get_range(key, 0, 10_000)
    assert dict(counted.parts) == {
        "timestamp": 1, "snapshot": 2, "root": 4, "delegations": 8, "approvals": 16, "rings": 32, "record": 64,
        "manifest": 128, "head": 256, "other": 512,
    }  # fmt: skip
    assert counted.get("channel/timestamp.json") == bytes(1) and counted.size("nothing") is None
    assert (counted.read_bytes, counted.requests) == (1024, len(sizes) + 2)


@dataclass
class Made:
    """Releases in a store that nobody has touched."""

    line: Line
    held: dict[str, bytes]

    def store(self) -> MemoryStore:
        """A copy."""
        copied = MemoryStore()
        for key, data in self.held.items():
            copied.put(key, data)
        return copied


@pytest.fixture(scope="module")
def made(extractor: Path) -> Made:
    store = MemoryStore()
    line = make_line(store, extractor.read_bytes(), 3)
    return Made(line, {one.key: store.get(one.key) for one in store.list("")})


@pytest.fixture(scope="module")
def delivered(made: Made, tmp_path_factory: pytest.TempPathFactory) -> tuple[Line, dict[str, Travelled], int]:
    """A node's life in a small fleet, and the size of the newest timestamp."""
    store, folder, line = made.store(), tmp_path_factory.mktemp("site"), made.line
    site = Site(store, folder, line, Fleet(rings=4, services=2))
    moves = {"first": site.first(), "look": site.look(), "head": site.move(line.head), "full": site.move(line.full)}
    moves["elsewhere"] = site.elsewhere(line.full, line.head)
    moves["batched"] = site.move_in_batches(line.full, line.batched)
    moves["fleet"] = site.move_all(line.last)
    return line, moves, store.size(metadata_key("timestamp.json")) or 0


def test_a_node_reads_a_release_once_and_of_a_new_head_the_head(
    delivered: tuple[Line, dict[str, Travelled], int],
) -> None:
    line, moves, stamp = delivered
    sizes = {layer.role: layer.size for layer in line.first.layers}
    assert {role: moves["first"].parts[role] for role in sizes} == sizes
    assert "backbone" not in moves["head"].parts and "config" not in moves["head"].parts
    assert moves["head"].parts["head"] == sizes["head"] and moves["head"].parts["probe"] > 1000
    assert moves["full"].parts["backbone"] == sizes["backbone"]
    assert moves["look"] == Travelled(bytes=stamp, requests=1, parts={"timestamp": stamp})
    assert moves["head"].parts["timestamp"] == 2 * stamp, "each of the two looks reads it once"
    assert all(sum(one.parts.values()) == one.bytes for one in moves.values())


def test_commits_for_others_cost_metadata_alone(delivered: tuple[Line, dict[str, Travelled], int]) -> None:
    _, moves, _ = delivered
    assert set(moves["elsewhere"].parts) == {"timestamp", "snapshot", "rings", "record"}
    one = {name: moves["elsewhere"].parts[name] for name in ("timestamp", "snapshot", "rings")}
    for name in ("batched", "fleet"):
        assert moves[name].parts["rings"] == pytest.approx(4 * one["rings"], rel=0.01), "four commits, four rings"
        assert moves[name].parts["snapshot"] == pytest.approx(5 * one["snapshot"], rel=0.02), "and the approval"


def test_the_channel_is_as_full_as_it_gets(made: Made, tmp_path: Path) -> None:
    store, line = made.store(), made.line
    site = Site(store, tmp_path, line, Fleet(rings=3, services=2))
    site.first()
    site.move(line.head)
    roles = [json.loads(store.get(o.key)) for o in store.list("channel") if ".releases-bench-delivery.json" in o.key]
    newest = max(roles, key=lambda role: int(role["signed"]["version"]))["signed"]["targets"]
    assert len(newest) == APPROVED
    assert all(target["custom"]["approved"] and target["custom"]["twin"] for target in newest.values())


def test_with_every_profile_a_new_head_still_fits(
    extractor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node reads the manifest with all variants, and what is said beside all approvals that are kept."""

    def varied(**values: Any) -> Release:
        told = {"runtime": "litert", "precision": "int8", "agreement": 0.995, "compared": 200}
        variants = [Variant.model_validate({"profile": name, "layers": values["layers"], **told}) for name in PROFILES]
        return Release(**values, variants=variants)

    monkeypatch.setattr(models, "Release", varied)
    store = MemoryStore()
    line = make_line(store, extractor.read_bytes(), 10)
    site = Site(store, tmp_path, line, Fleet())
    site.first()
    site.look()
    found = site.move(line.head)
    wider = found.bytes + (2048 - line.features) * 10 * 2  # half a float for each label
    assert found.parts["manifest"] > 4000 and wider <= LIMIT


def test_a_node_that_does_not_follow_is_no_figure(made: Made, tmp_path: Path) -> None:
    store, line = made.store(), made.line
    site = Site(store, tmp_path, line, Fleet(rings=1, services=1))
    site.first()
    head = line.head.layer("head")
    assert head is not None
    data = bytearray(store.get(blob_key(head.digest)))
    data[100] ^= 1
    store.put(blob_key(head.digest), bytes(data))
    with pytest.raises(NothingServes, match="not sha256:"):
        site.move(line.head)


# --- a fine-tune


def test_a_fine_tune_moves_every_tensor_a_little_and_still_runs(extractor: Path, tmp_path: Path) -> None:
    before = extractor.read_bytes()
    after = fine_tuned(before, 0)
    assert len(after) == len(before) and after == fine_tuned(before, 0) and after != fine_tuned(before, 1)
    changed = sum(a != b for a, b in zip(before, after, strict=True)) / len(before)
    assert 0.25 < changed < 0.35
    steps = {abs(a - b) for a, b in zip(before, after, strict=True)}
    assert steps == {0, 1}
    (tmp_path / "tuned.tflite").write_bytes(after)
    assert read_backbone(tmp_path / "tuned.tflite").length == read_backbone(extractor).length


def test_a_model_without_weights_cannot_be_tuned(extractor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_WEIGHTS", 1 << 40)
    with pytest.raises(NoWeights, match="name another one"):
        fine_tuned(extractor.read_bytes(), 0)


# --- deltas


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(0, 200_000),
    cut=st.floats(0, 1),
    removed=st.integers(0, 5000),
    added=st.binary(max_size=3000),
    seed=st.integers(0, 3),
)
def test_a_delta_gives_the_new_file_and_costs_what_is_new(
    size: int, cut: float, removed: int, added: bytes, seed: int
) -> None:
    old = random.Random(seed).randbytes(size)
    place = int(cut * size)
    new = old[:place] + added + old[place + removed :]
    delta = zstd_delta(old, new)
    assert zstd_apply(old, delta, len(new)) == new
    assert len(delta) < len(added) + 2000
    patch = bsdiff_delta(old, new)
    assert patch is not None and len(patch) < len(added) + 2000


def test_a_large_file_gets_no_bsdiff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deltas, "LARGEST_BSDIFF", 10)
    assert bsdiff_delta(b"x" * 11, b"y") is None
    assert bsdiff_delta(b"x" * 10, b"y") is not None


def test_sizes_are_those_of_the_whole() -> None:
    data = b"one two three " * 5000
    pieces = [data[i : i + 999] for i in range(0, len(data), 999)]
    assert gzip_size(pieces) == pytest.approx(len(gzip.compress(data, deltas.GZIP_LEVEL)), abs=20)
    assert 10 < zstd_size(pieces) < gzip_size(pieces)


# --- images


def test_a_client_fetches_what_it_does_not_hold(tmp_path: Path) -> None:
    made = base_layout(tmp_path / "image")
    layout = Layout(tmp_path / "image")
    whole = image.pull(layout, "", made.digest, ARCH)
    mine = next(one for one in made.images if one.config.architecture == ARCH)
    records = len(made.index.to_bytes()) + len(mine.manifest.to_bytes())
    blobs = {name: source.size for name, source in mine.blobs.items()}
    assert (whole.bytes, whole.requests, dict(whole.blobs)) == (records + sum(blobs.values()), 4, blobs)
    layer = mine.manifest.layers[0]
    part = image.pull(layout, "", made.digest, ARCH, held={layer.digest})
    assert (part.bytes, part.requests) == (whole.bytes - layer.size, 3)
    tar = b"".join(image.unpacked(layout, "", layer))
    assert digest(tar) == mine.config.rootfs.diff_ids[0]


def test_the_stand_in_holds_what_a_node_needs_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = image._closure("edgeloop")
    assert {"edgeloop", "numpy", "tuf", "ai-edge-litert"} <= names
    assert not {"tensorflow", "mlflow", "prefect", "pandas", "kubernetes"} & names
    listed = dict(image._node_files())
    assert {"edgeloop/edge/node.py", "numpy/__init__.py"} <= set(listed)
    few = {name: path for name, path in listed.items() if name.startswith("click/")}

    def chosen() -> Iterator[tuple[str, Path]]:
        yield from few.items()

    monkeypatch.setattr(image, "_node_files", chosen)
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
    one, two = image.stand_in(tmp_path / "a", ARCH), image.stand_in(tmp_path / "b", ARCH)
    assert one.digest == two.digest and one.name == "stand-in"
    tar = gzip.decompress(b"".join(one.sources[one.layers[0].digest].chunks()))
    assert digest(tar) == one.config.rootfs.diff_ids[0]
    assert b"opt/edgeloop/click/core.py" in tar


# --- what is said


def result(head_bytes: int = 20_000, image_bytes: int = 100_000_000) -> DeliveryBench:
    sizes = Sizes(stored=image_bytes + 1, gzip=image_bytes + 2, zstd=image_bytes, unpacked=3 * image_bytes)
    travelled = Travelled(bytes=head_bytes + 10_000, requests=9, parts={"head": head_bytes, "rings": 10_000})
    change = Change(travelled=travelled, image=sizes, pulled=70_000)
    return DeliveryBench(
        base="stand-in", backbone_bytes=1, features=1024, labels=10, rings=20, services=5, approvals=16,
        first=change, head=change, full=change, look=travelled, elsewhere=travelled, batched=travelled, fleet=travelled,
        seconds=1.0,
    )  # fmt: skip


def test_claims_are_made_of_the_figures() -> None:
    good = result()
    assert (good.missed, good.most_labels) == ([], 27)
    assert good.head.ratio == pytest.approx(100_000_000 / 30_000)
    assert "not reached" not in delivery_text(good)
    assert result(head_bytes=LIMIT - 10_000).missed == []
    large = result(head_bytes=LIMIT - 9_999)
    assert large.missed == [f"a new head of 10 labels is {LIMIT + 1} bytes, over {LIMIT}"] and large.most_labels == 9
    assert result(image_bytes=500 * 30_000).missed == []
    near = result(image_bytes=500 * 30_000 - 1)
    assert near.missed == ["a full image is 500 times a new head, less than 500"]
    assert delivery_text(near).endswith(f"not reached: {near.missed[0]}")


# --- the command


def run(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["--home", str(home), "bench", "delivery", *words])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_the_command_measures_on_a_given_base(
    extractor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "LARGEST_BSDIFF", 1_000_000)
    base = base_layout(tmp_path / "base")
    words = ("--backbone", str(extractor), "--base", f"oci:{tmp_path / 'base'}@{base.digest}", "--labels", "2")
    code, out, err = run(capsys, tmp_path, *words, "--rings", "3", "--figure", str(tmp_path / "f.png"), "--json")
    assert code == 0, err
    found = json.loads(out)
    head, first = found["head"], found["first"]
    assert head["travelled"]["bytes"] < LIMIT and found["batched"]["bytes"] < LIMIT
    assert first["image_zstd"] is None and first["pulled"] == first["image"]["stored"]
    assert head["pulled"] < first["pulled"] / 50
    assert 0 < head["layers_bsdiff"] < head["pulled"] and 0 < head["image_zstd"] < 2 * head["pulled"]
    assert found["full"]["layers_bsdiff"] is None, "it has a layer over the limit"
    assert first["travelled"]["parts"]["backbone"] < found["full"]["travelled"]["bytes"]
    assert [line.split(",")[0] for line in found["missed"]] == [
        f"a full image is {head['ratio']:.0f} times a new head"
    ], "the base is tiny here"
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "bench" / "delivery").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base", "oci:nowhere"], "has no digest"),
        (["--base", "127.0.0.1:1/base:1"], "has no digest"),
        (["--labels", "1"], "--labels"),
        (["--backbone", "README.md"], "README.md"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("no model")
    code, out, err = run(capsys, tmp_path, *words)
    said = [line for line in err.splitlines() if line.startswith("edgeloop: ")]
    assert (code, out, len(said)) == (2, "", 1) and message in said[0]
