"""Any folder with a ``stream.yaml`` as a stream: one table or one folder of photos per bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeloop.bench.stream.data import (
    NO_PREVIOUS,
    Bucket,
    EmptyBucket,
    Stream,
    WidthDiffers,
    label_numbers,
    with_previous,
)
from edgeloop.bench.stream.named import LOADERS, photo_bucket
from edgeloop.bench.stream.photos import Photographs
from edgeloop.errors import BadInput
from edgeloop.samples.records import digest

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

DEFINITION = "stream.yaml"
_TABLES = (".csv", ".csv.gz", ".parquet")
_HINTS = {"task": "quantities are not compared yet: cut them into grades and give these as labels"}


class UnknownStream(BadInput):
    """Neither a folder with a stream.yaml nor a known name."""


class InvalidStream(BadInput):
    """A stream.yaml, or a table that it names, cannot be used."""


class StreamFile(BaseModel):
    """One ``stream.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    task: Literal["classification"]
    metric: Literal["accuracy"]
    buckets: list[str] = Field(min_length=2)
    """Paths beside the file, in time order: ``.csv``, ``.csv.gz``, ``.parquet``, or a folder of photos by label."""
    label: str = "label"
    """Column of the label. Of photos in a folder, the folder's name is the label."""
    labels: list[str] | None = None
    """The closed set of labels; what occurs, if left out. Required for folders of photos."""
    group: str | None = None
    """Column of what a split must not part; equal rows form a group if left out."""
    image: str | None = None
    """Column of the photo's path, relative to the table; then no other column is read but label and group."""
    ordered: bool = False
    """Rows stand in time order; "same as last" is printed."""
    random_features: int | None = Field(default=None, ge=0, le=4000)
    """Width of the fixed random layer; 300 for tables and 0 for photos if left out."""


def open_stream(what: str, data: Path | None, photos: Photographs) -> Stream:
    """The stream in a folder, or the named one from the data folder.

    Raises:
        UnknownStream: neither is there, or a named one lacks its folder.
        InvalidStream: the definition or a table cannot be used.
    """
    if (Path(what) / DEFINITION).is_file():
        return read_stream(Path(what), photos)
    if what not in LOADERS:
        raise UnknownStream(f"{what!r} has no {DEFINITION} and is none of {', '.join(LOADERS)}: name one of them")
    if data is None:
        raise UnknownStream(f"stream {what} needs its data: name the folder that holds it with --data DIR")
    return LOADERS[what](data, photos)


def read_stream(folder: Path, photos: Photographs) -> Stream:
    """The stream that ``stream.yaml`` in ``folder`` defines.

    Raises:
        InvalidStream: the definition or a table cannot be used.
        EmptyBucket, LabelsMissing, UnknownLabel: of a bucket.
    """
    spec = read_definition(folder / DEFINITION)
    paths = [_inside(folder, name) for name in spec.buckets]
    if any(p.is_dir() for p in paths) and spec.labels is None:
        raise InvalidStream(f"{folder / DEFINITION}: labels: folders of photos need the list of labels: add it")
    tables = _same_columns({p: _read_table(p, spec) for p in paths if not p.is_dir()}, spec)
    labels = tuple(spec.labels or sorted({x for t in tables.values() for x in _labels(t, spec) if x}))
    buckets = tuple(
        photo_bucket(p.name, p, labels, photos) if p.is_dir() else _bucket(p, tables[p], spec, labels, photos)
        for p in paths
    )
    has_photos = bool(spec.image) or len(tables) < len(paths)
    width = spec.random_features if spec.random_features is not None else (0 if has_photos else 300)
    return Stream(spec.name, labels, buckets, width, spec.ordered)


def read_definition(path: Path) -> StreamFile:
    """Parse a ``stream.yaml``; raises InvalidStream naming the field."""
    try:
        return StreamFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise InvalidStream(f"{path}: {where}: {first['msg']}: {_HINTS.get(where, 'mend it')}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidStream(f"{path} is not YAML ({' '.join(str(error).split())[:120]}): mend it") from error


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidStream(f"{folder / DEFINITION}: bucket {name} lies outside of the folder: put it inside")
    if not path.is_dir() and not (path.is_file() and name.endswith(_TABLES)):
        raise InvalidStream(f"{path} is no folder and no {', '.join(_TABLES)} file: mend buckets")
    return path


def _read_table(path: Path, spec: StreamFile) -> pd.DataFrame:
    import pandas as pd

    try:
        as_text: dict[Any, Any] = {c: str for c in (spec.label, spec.group, spec.image) if c}
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=as_text)
    except (ValueError, OSError) as error:  # the errors of pandas and of Arrow are ValueErrors
        raise InvalidStream(
            f"{path} does not read as a table ({' '.join(str(error).split())[:120]}): mend it"
        ) from error
    lacks = [c for c in (spec.label, spec.group, spec.image) if c and c not in table.columns]
    if lacks:
        raise InvalidStream(f"{path} has no column {lacks[0]!r}: it has {', '.join(map(str, table.columns))[:150]}")
    if not len(table):
        raise EmptyBucket(f"bucket {path.name} has no rows: leave it out of buckets, or fill it")
    return table


def _same_columns(tables: dict[Path, pd.DataFrame], spec: StreamFile) -> dict[Path, pd.DataFrame]:
    """Features of every table in the order of the first: a column is known by its name, not by its place."""
    if spec.image or not tables:
        return tables
    special = [c for c in (spec.label, spec.group) if c]
    first, *_ = tables
    wanted = tables[first].drop(columns=special).columns
    for path, table in tables.items():
        found = table.drop(columns=special).columns
        if strange := sorted(map(str, set(found) ^ set(wanted))):
            raise WidthDiffers(
                f"bucket {path.name} has {len(found)} features, {first.name} has {len(wanted)}; not in both: "
                f"{', '.join(strange)[:150]}: give all the same columns"
            )
    return {path: table[[*wanted, *special]] for path, table in tables.items()}


def _labels(table: pd.DataFrame, spec: StreamFile) -> list[str | None]:
    column = table[spec.label]
    return [None if missing else str(label) for label, missing in zip(column, column.isna(), strict=True)]


def _bucket(path: Path, table: pd.DataFrame, spec: StreamFile, labels: tuple[str, ...], photos: Photographs) -> Bucket:
    """Rows without a label are left out: nobody could score them."""
    truth = label_numbers(path.name, _labels(table, spec), labels)
    kept = np.flatnonzero(truth >= 0)
    before = with_previous(truth) if spec.ordered else np.full(len(truth), NO_PREVIOUS, np.int64)
    table = table.iloc[kept]
    if spec.image:
        rows, sizes, names = photos.rows([path.parent / str(p) for p in table[spec.image]])
    else:
        rows = _numbers(path, table.drop(columns=[c for c in (spec.label, spec.group) if c]))
        sizes, names = np.full(len(rows), rows.shape[1] * 4, np.int64), [digest(r.tobytes()) for r in rows]
    groups = np.array([str(g) for g in table[spec.group]] if spec.group else names)
    return Bucket(path.name, rows, truth[kept], groups, sizes, before[kept])


def _numbers(path: Path, table: pd.DataFrame) -> NDArray[np.float32]:
    try:
        return np.ascontiguousarray(table.to_numpy(np.float64), np.float32)
    except (ValueError, TypeError) as error:
        raise InvalidStream(f"{path}: a feature is not a number ({error}): encode it, or drop the column") from error
