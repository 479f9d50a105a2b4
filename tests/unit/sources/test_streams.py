"""A stream never shows a device what the run is scored on, and no item twice."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from edgeloop.samples.payloads import decode_features, decode_image
from edgeloop.samples.records import digest
from edgeloop.samples.service import ImageInput, Service, load_service
from edgeloop.samples.splits import split_of
from edgeloop.sources.catalog import UnusableData
from edgeloop.sources.digits import CLEAN, LOOKS, START, TESTED, photograph, scan
from edgeloop.sources.streams import EmptyStream, Stream, load_stream
from tests.unit.samples.make import looker, picture, regressor

SERVICES = Path(__file__).resolve().parent.parent.parent.parent / "deployments" / "services"


def splits(stream: Stream, service: Service) -> dict[str, set[str]]:
    """The splits that occur in each part."""

    def of(items: chain[object] | list[object]) -> set[str]:
        return {split_of(digest(i.payload), service.name) for i in items}  # type: ignore[attr-defined]

    return {
        "start": of(list(stream.start)),
        "test": of(list(stream.test)),
        "rounds": of(chain.from_iterable(d.items for d in stream.rounds)),
    }


def payloads(stream: Stream) -> list[bytes]:
    return [i.payload for i in chain(stream.start, *(d.items for d in stream.rounds))]


@pytest.fixture(scope="module")
def digits() -> Service:
    """The service that ships, with smaller pictures: what is tested here does not depend on their size."""
    return load_service("digits", [SERVICES]).model_copy(update={"image": ImageInput(size=32)})


@pytest.fixture(scope="module")
def played(digits: Service) -> Stream:
    return load_stream(digits, Path(), 4, 0)


def test_digits_keep_the_test_set_apart(digits: Service, played: Stream) -> None:
    assert splits(played, digits) == {"start": {"pool", "gate"}, "test": {"test"}, "rounds": {"pool", "gate"}}
    assert len(set(payloads(played))) == len(payloads(played))


def test_digits_are_shown_in_every_look_of_the_rounds(played: Stream) -> None:
    assert [d.title for d in played.rounds] == [look.title for look in LOOKS]
    assert len(played.test) == TESTED * (1 + len(LOOKS))
    assert 0.5 * START < len(played.start) <= START
    assert {i.label for i in played.start} == {i.label for i in played.test} == {str(n) for n in range(10)}
    assert played.simulated is not None


def test_the_same_run_is_the_same_stream_and_a_later_one_is_not(digits: Service, played: Stream) -> None:
    assert payloads(load_stream(digits, Path(), 4, 0)) == payloads(played)
    assert not set(payloads(load_stream(digits, Path(), 4, 1))) & set(payloads(played))


def test_more_rounds_than_looks_begin_again(digits: Service) -> None:
    rounds = load_stream(digits, Path(), 5, 0).rounds
    assert [d.title for d in rounds] == [look.title for look in (*LOOKS, LOOKS[0])]
    assert len({len(d.items) > 50 for d in rounds}) == 1


def test_a_photograph_is_a_picture_of_the_page() -> None:
    values = np.zeros((8, 8))
    values[2:6, 3:5] = 16
    page = scan(values, 71)
    assert page.shape == (71, 71)
    assert page[0, 0] > 200
    assert page[35, 35] < 60
    shown = {look.title: photograph(page, look, np.random.default_rng(0)) for look in (CLEAN, *LOOKS)}
    assert len({digest(photo) for photo in shown.values()}) == len(LOOKS) + 1
    for look in (CLEAN, *LOOKS):
        pixels = decode_image(shown[look.title], 71).astype(float)
        assert np.abs(pixels[2, 2] - look.paper).max() < 80
    assert photograph(page, CLEAN, np.random.default_rng(0)) == shown[CLEAN.title]


@pytest.fixture
def wine(tmp_path: Path) -> tuple[Service, Path]:
    service = load_service("wine-rater", [SERVICES])
    rng = np.random.default_rng(0)
    for colour, count in (("red", 700), ("white", 900)):
        with (tmp_path / f"winequality-{colour}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, delimiter=";")
            writer.writerow([*service.feature_names, "quality"])
            sulphur = 1000 if colour == "white" else 0
            for _ in range(count):
                writer.writerow([*(rng.uniform(0, 1, 10).round(6)), sulphur, int(rng.integers(3, 9))])
    return service, tmp_path


def is_white(payload: bytes, service: Service) -> bool:
    return bool(decode_features(payload, service.feature_names)[-1] > 500)


def test_wines_get_whiter_and_none_is_poured_twice(wine: tuple[Service, Path]) -> None:
    service, folder = wine
    stream = load_stream(service, folder, 3, 0)
    assert splits(stream, service) == {"start": {"pool", "gate"}, "test": {"test"}, "rounds": {"pool", "gate"}}
    assert not any(is_white(i.payload, service) for i in stream.start)
    shares = [float(np.mean([is_white(i.payload, service) for i in d.items])) for d in stream.rounds]
    assert all(a < b for a, b in pairwise(shares))
    assert shares[-1] == 1
    assert max(Counter(payloads(stream)).values()) == 1
    assert {is_white(i.payload, service) for i in stream.test} == {True, False}


def test_wines_come_in_another_order_in_a_later_run(wine: tuple[Service, Path]) -> None:
    service, folder = wine
    one, again, other = (payloads(load_stream(service, folder, 3, run)) for run in (0, 0, 1))
    assert one == again
    assert one != other


def test_real_wines_can_be_read(shared: Path) -> None:
    service = load_service("wine-rater", [SERVICES])
    stream = load_stream(service, shared / "datasets" / "wine", 4, 0)
    assert len(stream.start) == 400
    assert len(stream.rounds) == 4
    assert {float(i.label) for i in stream.test} == {3, 4, 5, 6, 7, 8, 9}
    assert splits(stream, service)["test"] == {"test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a;b\n1;2\n", "each row needs numbers for"),
        ("", None),
        ("fixed acidity;quality\nsour;3\n", "each row needs numbers for"),
    ],
)
def test_a_wine_file_that_is_none_is_named(tmp_path: Path, text: str, message: str | None) -> None:
    service = load_service("wine-rater", [SERVICES])
    for colour in ("red", "white"):
        (tmp_path / f"winequality-{colour}.csv").write_text(text, encoding="utf-8")
    if message is None:
        with pytest.raises(EmptyStream, match="too few items of wine for 2 rounds"):
            load_stream(service, tmp_path, 2, 0)
        return
    with pytest.raises(UnusableData, match=message) as caught:
        load_stream(service, tmp_path, 2, 0)
    assert str(caught.value).startswith(f"{tmp_path / 'winequality-red.csv'}:")


def test_wine_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="edgeloop data get wine"):
        load_stream(load_service("wine-rater", [SERVICES]), tmp_path, 2, 0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(240):
        domain, label = ("one", "two")[number // 120], ("cat", "dog")[number % 2]
        path = tmp_path / domain / label / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number, (16, 16)))
    return tmp_path


def test_photos_are_all_shown_once(photos: Path) -> None:
    service = looker(data="cats-dogs")
    stream = load_stream(service, photos, 3, 0)
    assert splits(stream, service) == {"start": {"pool", "gate"}, "test": {"test"}, "rounds": {"pool", "gate"}}
    assert len(stream.start) == 100
    assert len(stream.rounds) == 3
    everything = [*payloads(stream), *(i.payload for i in stream.test)]
    assert sorted(digest(p) for p in everything) == sorted(digest(picture(n, (16, 16))) for n in range(240))
    assert {i.label for i in stream.start} == {"cat", "dog"}


def test_too_many_rounds_for_so_few_photos_are_refused(photos: Path) -> None:
    with pytest.raises(EmptyStream, match="too few items of cats-dogs for 200 rounds: ask for fewer rounds"):
        load_stream(looker(data="cats-dogs"), photos, 200, 0)


def test_photos_that_are_not_there_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="edgeloop data get cats-dogs"):
        load_stream(looker(data="cats-dogs"), tmp_path / "absent", 2, 0)


@pytest.mark.parametrize("data", [None, "beer"])
def test_a_service_without_a_known_data_set_is_refused(data: str | None, tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="the demo knows digits, wine, cats-dogs"):
        load_stream(regressor(data=data), tmp_path, 2, 0)
