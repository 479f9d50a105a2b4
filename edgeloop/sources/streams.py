"""Streams that drift: a labelled start, then domains in the order in which devices meet them.

Every item belongs to one split for ever by its payload's hash. Items of the test split are never streamed: they form
the locked test set, over all domains, that the whole run is scored on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from edgeloop.errors import BadInput
from edgeloop.samples.payloads import UndecodablePayload, decode_image, encode_features
from edgeloop.samples.records import digest
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from edgeloop.sources.catalog import UnusableData, image_domains

#: Wines that devices measure in one round, at most.
WINES = 900


class EmptyStream(BadInput):
    """A data set has nothing to stream."""


@dataclass(frozen=True)
class Item:
    """One input with its right answer."""

    payload: bytes
    label: str


@dataclass(frozen=True)
class Domain:
    """Items that look alike: what devices meet in one round."""

    title: str
    items: Sequence[Item]


@dataclass(frozen=True)
class Stream:
    """What a demo replays."""

    start: Sequence[Item]
    """The small labelled set that the first model is made from (pool and gate)."""
    test: Sequence[Item]
    """The locked test set over all domains."""
    rounds: Sequence[Domain]
    simulated: str | None
    """What of it is simulated, in a sentence; None if the drift is real."""


def load_stream(service: Service, folder: Path, rounds: int, run: int) -> Stream:
    """Build the stream of a service's data set.

    Args:
        service: whose ``data`` names the data set.
        folder: where :func:`~edgeloop.sources.catalog.get_dataset` put it.
        rounds: how many rounds will be played.
        run: how often this home was played before; a later run draws other items in another order.

    Raises:
        UnusableData: the data set does not fit the service, or is not there.
        EmptyStream: it has too few items for so many rounds.
    """
    loaders = {"digits": _digits, "wine": _wine, "cats-dogs": _photos}
    if service.data not in loaders:
        raise UnusableData(
            f"service {service.name} names the data set {service.data!r}; the demo knows {', '.join(loaders)}"
        )
    stream = loaders[service.data](service, folder, rounds, run)
    if not stream.start or any(not d.items for d in stream.rounds):
        raise EmptyStream(f"{folder} has too few items of {service.data} for {rounds} rounds: ask for fewer rounds")
    return stream


def _part(items: Sequence[Item], service: Service) -> tuple[list[Item], list[Item]]:
    """(streamed, test)"""
    test = [i for i in items if split_of(digest(i.payload), service.name) == "test"]
    rest = [i for i in items if split_of(digest(i.payload), service.name) != "test"]
    return rest, test


def _chunks(items: list[Item], count: int) -> list[list[Item]]:
    size = math.ceil(len(items) / count) if items else 0
    return [items[i * size : (i + 1) * size] for i in range(count)]


def _wine(service: Service, folder: Path, rounds: int, run: int) -> Stream:
    """Red wines first; then ever more white ones."""
    order = np.random.default_rng([7, run])
    red, red_test = _part(_shuffled(_read_wine(folder / "winequality-red.csv", service), order), service)
    white, white_test = _part(_shuffled(_read_wine(folder / "winequality-white.csv", service), order), service)
    start, reds, whites = red[:400], iter(red[400:]), iter(white)
    domains = []
    for number in range(1, rounds + 1):
        size = min(WINES, len(white) // rounds)
        share = size * number // rounds
        items = [*islice(whites, share), *islice(reds, size - share)]
        domains.append(Domain(f"{number / rounds:.0%} white wines", _shuffled(items, order)))
    return Stream(
        start, red_test + white_test, domains, "Simulated: devices and labels are simulated; the wines are real."
    )


def _shuffled(items: list[Item], order: np.random.Generator) -> list[Item]:
    return [items[i] for i in order.permutation(len(items))]


def _read_wine(path: Path, service: Service) -> list[Item]:
    if not path.is_file():
        raise UnusableData(f"{path} is not there: run  edgeloop data get wine")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream, delimiter=";")
        try:
            return [_wine_item(row, service) for row in rows]
        except (KeyError, ValueError, TypeError, BadInput) as error:
            raise UnusableData(
                f"{path}:{rows.line_num}: {error}: each row needs numbers for {service.feature_names} and quality"
            ) from error


def _wine_item(row: dict[str, str], service: Service) -> Item:
    if None in row or None in row.values():
        raise ValueError("row of wrong length")
    values = {name: float(row[name]) for name in service.feature_names}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}")
    payload = encode_features(list(values.values()))
    label = str(float(row["quality"]))
    fault = service.label_fault(label)
    if fault:
        raise ValueError(fault)
    return Item(payload, label)


def _photos(service: Service, folder: Path, rounds: int, run: int) -> Stream:
    """Photo collections one after the other: the start comes from the first, later rounds meet the others."""
    if not folder.is_dir():
        raise UnusableData(f"{folder} is not there: run  edgeloop data get {service.data}")
    order = np.random.default_rng([11, run])
    domains = image_domains(folder, tuple(service.labels or []))
    items = {
        name: _shuffled([_photo(p, label) for label, paths in by.items() for p in paths], order)
        for name, by in domains.items()
    }
    streamed: list[Item] = []
    test: list[Item] = []
    for photos in items.values():
        rest, locked = _part(photos, service)
        streamed += rest
        test += locked
    start, later = streamed[:100], streamed[100:]
    played = [Domain(f"photos, round {n}", part) for n, part in enumerate(_chunks(later, rounds), 1)]
    return Stream(start, test, played, "Simulated: devices and labels are simulated; the photos are real.")


def _photo(path: Path, label: str) -> Item:
    payload = path.read_bytes()
    try:
        decode_image(payload, 16)
    except UndecodablePayload as error:
        raise UnusableData(f"{path}: {error}") from error
    return Item(payload, label)


def _digits(service: Service, folder: Path, rounds: int, run: int) -> Stream:
    from edgeloop.sources.digits import load_digits_stream

    return load_digits_stream(service, rounds, run)
