"""Streams that are known by name, each read from the folder that its data set was put in."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.data import NO_PREVIOUS, Bucket, Stream, label_numbers, with_previous
from edgeloop.bench.stream.photos import Photographs
from edgeloop.errors import BadInput
from edgeloop.samples.records import digest
from edgeloop.sources.catalog import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGITS = ("mnist", "usps", "optdigits", "semeion")
#: Buckets that a stream without marks of its own is cut into.
CUTS = 10
_DIGIT_WIDTH = 1500
_TABLE_WIDTH = 300


class MissingStream(BadInput):
    """A named stream's data is not where it was said to be."""


class DamagedStream(BadInput):
    """A file of a named stream does not hold what it should."""


def digits(folder: Path, photos: Photographs) -> Stream:
    """MNIST, USPS, Optdigits, Semeion from ``digits28.npz``: ``X_*`` and ``y_*`` for each."""
    path = _find(folder, "digits28.npz", "digits")
    try:
        with np.load(path, allow_pickle=False) as held:
            parts = [(name, held[f"X_{name}"], held[f"y_{name}"]) for name in DIGITS]
    except (KeyError, ValueError, OSError) as error:
        raise DamagedStream(f"{path} is not the digits' file ({error}): fetch it again") from error
    buckets = tuple(_digit_bucket(name, images, truth) for name, images, truth in parts)
    return Stream("digits", tuple("0123456789"), buckets, _DIGIT_WIDTH)


def _digit_bucket(name: str, images: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Bucket:
    flat = np.ascontiguousarray(images.reshape(len(images), -1))
    groups = np.array([digest(row.tobytes()) for row in flat])
    sizes = np.full(len(flat), flat.shape[1], np.int64)
    rows = np.asarray(flat / np.float32(255), np.float32)
    return Bucket(name, rows, truth.astype(np.int64), groups, sizes, np.full(len(flat), NO_PREVIOUS, np.int64))


def cats_dogs(folder: Path, photos: Photographs) -> Stream:
    """The photo collections ``asirra`` and ``oxford``, each with ``cat/`` and ``dog/``."""
    buckets = []
    for name in ("asirra", "oxford"):
        home = _find(folder, name, "cats-dogs")
        buckets.append(photo_bucket(name, home, ("cat", "dog"), photos))
    return Stream("cats-dogs", ("cat", "dog"), tuple(buckets), 0)


def photo_bucket(name: str, folder: Path, labels: Sequence[str], photos: Photographs) -> Bucket:
    """A folder of photos with one folder per label, shuffled: a collection has no order of its own."""
    named = [(p, label) for label in labels for p in _images(folder / label)]
    order = np.random.default_rng(5).permutation(len(named))
    paths = [named[i][0] for i in order]
    if not paths:
        raise DamagedStream(f"{folder} has no photos in {', '.join(f'{x}/' for x in labels)}: put JPEG or PNG there")
    truth = label_numbers(name, [named[i][1] for i in order], labels)
    rows, sizes, groups = photos.rows(paths)
    return Bucket(name, rows, truth, np.array(groups), sizes, np.full(len(rows), NO_PREVIOUS, np.int64))


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else []


def wine(folder: Path, photos: Photographs) -> Stream:
    """Red, then white; the label is the grade, 3 to 9, so that accuracy is being within half a grade.

    Equal rows of features form one group, since the data has duplicates.
    """
    tables = [(colour, _table(_find(folder, f"winequality-{colour}.csv", "wine"), ";")) for colour in ("red", "white")]
    grades = tuple(str(grade) for grade in range(3, 10))
    order = np.random.default_rng(5)
    buckets = tuple(_wine_bucket(colour, table, grades, order) for colour, table in tables)
    return Stream("wine", grades, buckets, _TABLE_WIDTH)


def _wine_bucket(name: str, table: NDArray[np.float64], grades: tuple[str, ...], order: np.random.Generator) -> Bucket:
    table = table[order.permutation(len(table))]
    rows = np.ascontiguousarray(table[:, :-1], np.float32)
    truth = label_numbers(name, [str(int(grade)) for grade in table[:, -1]], grades)
    groups = np.array([digest(row.tobytes()) for row in rows])
    return Bucket(name, rows, truth, groups, _row_bytes(rows), np.full(len(rows), NO_PREVIOUS, np.int64))


def elec(folder: Path, photos: Photographs) -> Stream:
    """The price of electricity, up or down, every half hour; a day is a group."""
    return _in_order("elec", _table(_find(folder, "elec.csv.gz", "streams"), ","), 48)


def weather(folder: Path, photos: Photographs) -> Stream:
    """Rain or none, day by day; a week is a group."""
    return _in_order("weather", _table(_find(folder, "weather.csv.gz", "streams"), ","), 7)


def _in_order(name: str, table: NDArray[np.float64], group: int) -> Stream:
    """Cut into :data:`CUTS` buckets in time order, on borders of groups."""
    truth, rows = table[:, -1].astype(np.int64), table[:, :-1].astype(np.float32)
    blocks = np.arange(len(table)) // group
    groups = np.array([f"{name}-{block}" for block in blocks])
    before, sizes = with_previous(truth), _row_bytes(rows)
    bucket_of = blocks * CUTS // (int(blocks[-1]) + 1)
    whole = Bucket(name, rows, truth, groups, sizes, before)
    buckets = []
    for number in range(CUTS):
        part = whole.take(np.flatnonzero(bucket_of == number))
        buckets.append(Bucket(f"{name} {number}", part.rows, part.truth, part.groups, part.sizes, part.previous))
    return Stream(name, ("0", "1"), tuple(buckets), _TABLE_WIDTH, ordered=True)


def _row_bytes(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.full(len(rows), rows.shape[1] * rows.itemsize, np.int64)


def _table(path: Path, separator: str) -> NDArray[np.float64]:
    """A file of numbers under a header, [rows, columns]."""
    content = path.read_bytes()
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        lines = list(csv.reader(io.StringIO(text), delimiter=separator))[1:]
        found = np.array(lines, np.float64)
    except (ValueError, OSError, EOFError) as error:
        raise DamagedStream(f"{path} is not a table of numbers ({error}): fetch it again") from error
    if found.ndim != 2 or not len(found):
        raise DamagedStream(f"{path} has no rows: fetch it again")
    return found


def _find(folder: Path, name: str, inside: str) -> Path:
    for path in (folder / name, folder / inside / name):
        if path.exists():
            return path
    raise MissingStream(f"{folder} has no {name}, nor {inside}/{name}: name the folder of the data with --data DIR")


LOADERS: dict[str, Callable[[Path, Photographs], Stream]] = {
    "digits": digits,
    "cats-dogs": cats_dogs,
    "wine": wine,
    "elec": elec,
    "weather": weather,
}
