"""The data sets there are, their official addresses and checksums, and how they get into a home.

Nothing of them is part of edgeloop: they are fetched from where they are published, or taken from a directory.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeloop.errors import BadInput, Unavailable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_CHUNK = 1 << 20


class UnknownDataset(BadInput):
    """There is no data set of this name."""


class UnusableData(BadInput):
    """A directory or download does not hold the data set."""


class DownloadFailed(Unavailable):
    """An official address did not give the data set."""


@dataclass(frozen=True)
class File:
    """One file of a data set at its official address."""

    name: str
    url: str
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A data set: tabular ones are ``files``; image sets are folders of images by label."""

    name: str
    about: str
    files: tuple[File, ...]
    labels: tuple[str, ...] = ()


_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases/wine-quality"
_ASIRRA = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F"
CATALOG: dict[str, Dataset] = {
    "digits": Dataset("digits", "1,797 scanned digits that scikit-learn ships; nothing to fetch", ()),
    "wine": Dataset(
        "wine",
        "Wine Quality (Cortez et al. 2009), UCI, CC BY 4.0",
        (
            File(
                "winequality-red.csv",
                f"{_UCI}/winequality-red.csv",
                "4a402cf041b025d4566d954c3b9ba8635a3a8a01e039005d97d6a710278cf05e",
            ),
            File(
                "winequality-white.csv",
                f"{_UCI}/winequality-white.csv",
                "76c3f809815c17c07212622f776311faeb31e87610d52c26d87d6e361b169836",
            ),
        ),
    ),
    "cats-dogs": Dataset(
        "cats-dogs",
        "Asirra cats and dogs (PetImages), Microsoft, for research; 787 MB",
        (
            File(
                "kagglecatsanddogs_5340.zip",
                f"{_ASIRRA}/kagglecatsanddogs_5340.zip",
                "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
            ),
        ),
        labels=("cat", "dog"),
    ),
}
Progress = Callable[[str, int, int | None], None]


def find_dataset(name: str) -> Dataset:
    """The catalogue's entry.

    Raises:
        UnknownDataset: there is none; the message lists those there are.
    """
    if name not in CATALOG:
        raise UnknownDataset(f"unknown data set {name!r}; known: {', '.join(CATALOG)}: choose one of them")
    return CATALOG[name]


def get_dataset(name: str, home: Path, source: Path | None = None, progress: Progress = lambda *_: None) -> Path:
    """Bring a data set into ``<home>/data/<name>`` and return that directory; what is there is kept.

    Args:
        name: name in the catalogue.
        home: home directory.
        source: a local directory that holds it, instead of the official address.
        progress: told the file, the bytes so far and the bytes in all.

    Raises:
        UnknownDataset: no such name.
        UnusableData: the source lacks a file, has no images, or a checksum differs.
        DownloadFailed: the official address does not answer.
    """
    dataset = find_dataset(name)
    target = home / "data" / name
    if target.is_dir() or (not dataset.files and not dataset.labels):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as folder:
        beside = Path(folder) / name
        beside.mkdir()
        if source:
            _copy(dataset, source, beside)
        else:
            _download(dataset, beside, progress)
        beside.rename(target)
    return target


def _copy(dataset: Dataset, source: Path, target: Path) -> None:
    if not source.is_dir():
        raise UnusableData(f"--from {source} is not a directory: name the one that holds {dataset.name}")
    if dataset.labels:
        domains = image_domains(source, dataset.labels)
        for domain, images in domains.items():
            for label, paths in images.items():
                folder = target / domain / label
                folder.mkdir(parents=True)
                for path in paths:
                    shutil.copyfile(path, folder / path.name)
        return
    for file in dataset.files:
        origin = source / file.name
        if not origin.is_file():
            raise UnusableData(f"--from {source} has no {file.name}: name the directory that holds {dataset.name}")
        _verify(origin, file)
        shutil.copyfile(origin, target / file.name)


def image_domains(source: Path, labels: tuple[str, ...]) -> dict[str, dict[str, list[Path]]]:
    """Images by domain and label: ``source/<label>/*``, or ``source/<domain>/<label>/*`` for several domains.

    Raises:
        UnusableData: a label has no images.
    """
    domains = (
        {"photos": source}
        if _label_folder(source, labels[0])
        else {d.name: d for d in sorted(source.iterdir()) if d.is_dir() and _label_folder(d, labels[0])}
    )
    found: dict[str, dict[str, list[Path]]] = {}
    for domain, folder in domains.items():
        found[domain] = {}
        for label in labels:
            inside = _label_folder(folder, label)
            images = sorted(p for p in inside.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if inside else []
            if not images:
                raise UnusableData(f"{folder} has no images in {label}/: put JPEG or PNG files there")
            found[domain][label] = images
    if not found:
        raise UnusableData(f"{source} has no images: it needs the folders {', '.join(f'{x}/' for x in labels)}")
    return found


def _label_folder(folder: Path, label: str) -> Path | None:
    return next((folder / n for n in (label, label.capitalize()) if (folder / n).is_dir()), None)


def _verify(path: Path, file: File) -> None:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    if found.hexdigest() != file.sha256:
        raise UnusableData(f"{path.name} has sha256 {found.hexdigest()}, expected {file.sha256}: fetch it again")


def _download(dataset: Dataset, target: Path, progress: Progress) -> None:
    for file in dataset.files:
        path = target / file.name
        _fetch(file, path, progress)
        _verify(path, file)
        if path.suffix == ".zip":
            _unpack_images(path, target, dataset)


def _fetch(file: File, path: Path, progress: Progress) -> None:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(file.url, timeout=60) as reply, path.open("wb") as sink:  # noqa: S310 - https only
            length = reply.headers.get("Content-Length")
            done = 0
            while chunk := reply.read(_CHUNK):
                sink.write(chunk)
                done += len(chunk)
                progress(file.name, done, int(length) if length else None)
    except (urllib.error.URLError, OSError, TimeoutError) as error:
        raise DownloadFailed(
            f"{file.url} cannot be fetched ({error}): try later, or  edgeloop data get NAME --from DIR"
        ) from error


def _unpack_images(archive: Path, target: Path, dataset: Dataset) -> None:
    with zipfile.ZipFile(archive) as content:
        for member in content.infolist():
            parts = Path(member.filename).parts
            label = parts[-2].lower() if len(parts) >= 2 else ""
            if label in dataset.labels and Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES and member.file_size:
                folder = target / "photos" / label
                folder.mkdir(parents=True, exist_ok=True)
                (folder / parts[-1]).write_bytes(content.read(member))
    archive.unlink()
