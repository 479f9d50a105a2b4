"""A photo that was encoded, resized or cropped once more does not learn what its double judges."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeloop.clients.objects import MemoryStore
from edgeloop.quality.likeness import doubles
from edgeloop.quality.validate import validate
from edgeloop.samples.likeness import looks, miniature
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import looker, picture, plain_picture, regressor, sample

SERVICE = looker(image={"size": 71})


@pytest.fixture(scope="module", autouse=True)
def great_expectations() -> None:
    """Imported with its warnings unheard: it imports modules of the standard library that are on their way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations.expectations  # noqa: F401


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Without ``share`` of its width and height on each side."""
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "encoded again": lambda image: encoded(image, 40),
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2))),
    "cropped by 1 %": lambda image: encoded(cropped(image, 0.01)),
}


class Photos:
    """The tables of a service of photos; groups are digests, as nodes name them."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.tables = Tables("looker", self.store.table)
        self.count = 0

    def add(self, payloads: Sequence[bytes], group: str | None = None) -> list[Sample]:
        made = [
            sample(self.count + n, "looker", data, prediction="cat", group=group or digest(data))
            for n, data in enumerate(payloads)
        ]
        self.count += len(made)
        self.tables.merge("samples", [to_row(s) for s in made], Sample)
        validate(self.tables, SERVICE, [])
        return made

    def verdicts(self) -> dict[str, tuple[bool, str]]:
        return {r["sample_id"]: (r["accepted"], r["reason"] or "") for r in self.tables.read("verdicts")}


def side(one: Sample) -> str:
    return split_of(one.group, "looker")


@pytest.fixture(scope="module")
def images(shared: Path) -> list[Image.Image]:
    """240 photos, every one of another scene."""
    files = sorted((shared / "datasets" / "cats-dogs").rglob("*.jpg"))[::10][:240]
    return [Image.open(file).convert("RGB") for file in files]


@pytest.mark.parametrize("change", CHANGES)
def test_a_photo_and_its_double_are_on_one_side_or_the_double_is_out(images: list[Image.Image], change: str) -> None:
    world = Photos()
    first = world.add([encoded(image, 90) for image in images])
    assert all(accepted for accepted, _ in world.verdicts().values()), "no photo is the double of another"
    second = world.add([CHANGES[change](image) for image in images])
    verdicts = world.verdicts()
    parted = [(a, b) for a, b in zip(first, second, strict=True) if side(a) != side(b)]
    assert len(parted) > 80, "by their digests, more than a third are parted"
    leaked = [b for _, b in parted if verdicts[b.sample_id][0]]
    assert len(leaked) <= 0.01 * len(parted)
    assert all(verdicts[b.sample_id][0] for a, b in zip(first, second, strict=True) if side(a) == side(b))
    original, double = parted[0]
    reason = verdicts[double.sample_id][1]
    where = f"which is in {side(original)} while this one would be in {side(double)}"
    assert re.fullmatch(rf"near-duplicate of {original.sample_id} \((0.9\d\d|1.000) alike\), {where}", reason)


def test_doubles_in_one_batch_are_found_too(images: list[Image.Image]) -> None:
    world = Photos()
    made = world.add([data for image in images[:40] for data in (encoded(image, 90), encoded(image, 50))])
    verdicts = world.verdicts()
    kept = [s for s in made if verdicts[s.sample_id][0]]
    sides = [{side(s) for s in made[n : n + 2] if s in kept} for n in range(0, len(made), 2)]
    assert all(len(found) == 1 for found in sides)
    assert len(kept) < len(made)


def test_of_one_group_all_stay(images: list[Image.Image]) -> None:
    world = Photos()
    world.add([encoded(images[0], quality) for quality in (90, 70, 50)], group="one session")
    assert all(accepted for accepted, _ in world.verdicts().values())


def test_a_group_that_is_set_aside_judges_nobody(images: list[Image.Image]) -> None:
    """The double of a double that is out, on the side of the first one, is in."""
    world = Photos()
    names: dict[str, str] = {split_of(f"g{n}", "looker"): f"g{n}" for n in range(50)}
    versions = [encoded(images[0], quality) for quality in (90, 70, 50)]
    ids = [
        world.add([data], names[where])[0].sample_id
        for data, where in zip(versions, ("gate", "pool", "gate"), strict=True)
    ]
    verdicts = world.verdicts()
    assert [verdicts[name][0] for name in ids] == [True, False, True]
    assert {r["sample_id"] for r in world.tables.read("miniatures", ["sample_id"])} == {ids[0], ids[2]}


def test_it_can_be_switched_off_and_is_for_photos_only(images: list[Image.Image]) -> None:
    tables = Tables("looker", MemoryStore().table)
    rows = [
        {"sample_id": str(n), "group": f"g{n}", "_decoded": np.asarray(images[0].resize((71, 71)))} for n in range(9)
    ]
    off = looker(image={"size": 71}, gate={"near_duplicates": None})
    assert doubles(tables, off, rows) == {}
    assert doubles(tables, regressor(), [{"sample_id": "1", "group": "g", "_decoded": np.zeros(2)}]) == {}
    assert doubles(tables, SERVICE, [{"sample_id": "1", "group": "g"}]) == {}
    assert tables.version("miniatures") is None
    assert doubles(tables, SERVICE, rows)


def test_a_validation_that_is_cut_off_says_the_same_when_it_is_done_again(images: list[Image.Image]) -> None:
    ends: list[Any] = []

    def run(fuse: Fuse) -> None:
        world = Photos()
        payloads = [data for image in images[:6] for data in (encoded(image, 90), encoded(image, 50))]
        made = [sample(n, "looker", data, prediction="cat", group=digest(data)) for n, data in enumerate(payloads)]
        world.tables.merge("samples", [to_row(s) for s in made], Sample)
        guarded: Any = Guarded(world.tables, fuse, "merge")
        with suppress(Crash):
            validate(guarded, SERVICE, [])
        validate(world.tables, SERVICE, [])
        kept = {r["sample_id"] for r in world.tables.read("miniatures", ["sample_id"])}
        ends.append((world.verdicts(), kept))

    assert crash_everywhere(run) == 3
    assert all(end == ends[0] for end in ends)


def test_pictures_without_contrast_are_like_nothing() -> None:
    grey, white = (np.asarray(Image.open(io.BytesIO(plain_picture(level)))) for level in (90, 250))
    noisy = np.asarray(Image.open(io.BytesIO(picture(1))))
    found = looks([miniature(one) for one in (grey, white, noisy)])
    assert (found @ found.T).diagonal() == pytest.approx([0, 0, 1], abs=1e-5)


def test_equal_wines_are_of_one_group(shared: Path) -> None:
    """More than a thousand rows are there twice; nodes name a row's group by its digest."""
    rows: list[str] = []
    for name in ("red", "white"):
        (file,) = (shared / "datasets" / "wine").glob(f"*{name}*")
        rows += [line.rsplit(";", 1)[0] for line in file.read_text(encoding="utf-8").splitlines()[1:]]
    groups: dict[str, set[str]] = {}
    for row in rows:
        values = [float(text) for text in row.split(";")]
        groups.setdefault(row, set()).add(digest(encode_features(values)))
    assert len(rows) - len(groups) > 1000
    assert all(len(names) == 1 for names in groups.values())
