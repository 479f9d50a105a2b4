"""Data sets come whole and checked, or not at all."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeloop.sources import catalog
from edgeloop.sources.catalog import (
    CATALOG,
    Dataset,
    DownloadFailed,
    File,
    UnknownDataset,
    UnusableData,
    find_dataset,
    get_dataset,
    image_domains,
)
from tests.unit.samples.make import picture

TABLE = b"a;b\n1;2\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def offer(monkeypatch: pytest.MonkeyPatch, origin: Path, data: bytes, expected: bytes | None = None) -> None:
    """A data set ``table`` of one file, at an address of this machine."""
    (origin / "table.csv").write_bytes(data)
    file = File("table.csv", (origin / "table.csv").as_uri(), sha(data if expected is None else expected))
    monkeypatch.setitem(CATALOG, "table", Dataset("table", "a table", (file,)))


def left_over(home: Path) -> list[str]:
    return sorted(str(p.relative_to(home)) for p in home.rglob("*")) if home.is_dir() else []


def test_a_data_set_is_fetched_checked_and_kept(monkeypatch: pytest.MonkeyPatch, origin: Path, home: Path) -> None:
    offer(monkeypatch, origin, TABLE)
    told: list[tuple[Any, ...]] = []
    folder = get_dataset("table", home, progress=lambda *what: told.append(what))
    assert folder == home / "data" / "table"
    assert (folder / "table.csv").read_bytes() == TABLE
    assert told[-1][:2] == ("table.csv", len(TABLE))
    (origin / "table.csv").unlink()
    assert get_dataset("table", home) == folder


def test_bytes_of_another_checksum_are_refused(monkeypatch: pytest.MonkeyPatch, origin: Path, home: Path) -> None:
    offer(monkeypatch, origin, b"tampered", TABLE)
    for source in (None, origin):
        with pytest.raises(UnusableData, match=f"table.csv has sha256 {sha(b'tampered')}, expected {sha(TABLE)}"):
            get_dataset("table", home, source)
    assert left_over(home) == ["data"]


def test_an_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, origin: Path, home: Path) -> None:
    offer(monkeypatch, origin, TABLE)
    (origin / "table.csv").unlink()
    with pytest.raises(DownloadFailed, match=r"table.csv cannot be fetched .* --from DIR"):
        get_dataset("table", home)
    assert left_over(home) == ["data"]


def test_a_data_set_is_taken_from_a_directory(monkeypatch: pytest.MonkeyPatch, origin: Path, home: Path) -> None:
    offer(monkeypatch, origin, TABLE)
    assert (get_dataset("table", home, origin) / "table.csv").read_bytes() == TABLE


def test_a_directory_without_it_is_refused(monkeypatch: pytest.MonkeyPatch, origin: Path, home: Path) -> None:
    offer(monkeypatch, origin, TABLE)
    with pytest.raises(UnusableData, match="is not a directory"):
        get_dataset("table", home, origin / "absent")
    (origin / "table.csv").unlink()
    with pytest.raises(UnusableData, match=r"has no table.csv"):
        get_dataset("table", home, origin)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownDataset, match="unknown data set 'beer'; known: digits, wine, cats-dogs"):
        find_dataset("beer")


def test_digits_need_nothing(home: Path) -> None:
    get_dataset("digits", home)
    assert left_over(home) == []


def put(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(seed))


def test_images_are_found_by_label_in_one_folder_or_by_domain(origin: Path) -> None:
    for path in ("Cat/1.jpg", "Cat/2.JPEG", "Cat/notes.txt", "dog/1.png"):
        put(origin / path)
    found = image_domains(origin, ("cat", "dog"))
    assert {k: [p.name for p in v] for k, v in found["photos"].items()} == {
        "cat": ["1.jpg", "2.JPEG"],
        "dog": ["1.png"],
    }
    domains = origin.parent / "domains"
    for path in ("b/cat/1.jpg", "b/dog/1.jpg", "a/cat/1.jpg", "a/dog/1.jpg", "other/1.jpg"):
        put(domains / path)
    assert list(image_domains(domains, ("cat", "dog"))) == ["a", "b"]


def test_a_label_without_images_is_named(origin: Path) -> None:
    put(origin / "cat/1.jpg")
    with pytest.raises(UnusableData, match="has no images in dog/"):
        image_domains(origin, ("cat", "dog"))
    with pytest.raises(UnusableData, match="has no images: it needs the folders bird/, fish/"):
        image_domains(origin, ("bird", "fish"))


def test_images_are_copied_by_domain(origin: Path, home: Path) -> None:
    for path in ("b/cat/1.jpg", "b/dog/1.jpg", "a/Cat/1.jpg", "a/Dog/1.jpg"):
        put(origin / path)
    folder = get_dataset("cats-dogs", home, origin)
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*.jpg"))
    assert found == ["a/cat/1.jpg", "a/dog/1.jpg", "b/cat/1.jpg", "b/dog/1.jpg"]


def test_an_archive_is_unpacked_without_what_is_no_image(
    monkeypatch: pytest.MonkeyPatch, origin: Path, home: Path
) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in ("Pets/Cat/1.jpg", "Pets/Dog/1.jpg", "Pets/Dog/../../../Dog/escaped.jpg", "/Cat/absolute.jpg"):
            archive.writestr(name, picture(1))
        archive.writestr("Pets/Cat/Thumbs.db", b"no image")
        archive.writestr("Pets/Cat/empty.jpg", b"")
        archive.writestr("readme.txt", b"hello")
    data = sink.getvalue()
    (origin / "pets.zip").write_bytes(data)
    file = File("pets.zip", (origin / "pets.zip").as_uri(), sha(data))
    monkeypatch.setitem(catalog.CATALOG, "pets", Dataset("pets", "pets", (file,), ("cat", "dog")))
    folder = get_dataset("pets", home)
    assert sorted(str(p.relative_to(home)) for p in home.rglob("*") if p.is_file()) == [
        "data/pets/photos/cat/1.jpg",
        "data/pets/photos/cat/absolute.jpg",
        "data/pets/photos/dog/1.jpg",
        "data/pets/photos/dog/escaped.jpg",
    ]
    assert list(image_domains(folder, ("cat", "dog"))) == ["photos"]


def test_addresses_are_official_and_checked() -> None:
    for dataset in CATALOG.values():
        for file in dataset.files:
            assert file.url.startswith("https://")
            assert file.url.endswith(file.name)
            assert len(file.sha256) == 64
