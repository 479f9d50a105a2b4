"""What is kept by digest is what was put, or it is not there: whoever else writes, removes, or damages parts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.bench.retrain.counting import CountingStore
from edgeloop.clients.objects import MemoryStore, ObjectInfo, ObjectStore, ensure_bucket, open_store
from edgeloop.learning.kept_rows import MOST_PARTS, KeptRows
from edgeloop.samples.records import digest
from tests.contract.stores import at_once, keys_of

OF, OTHER = digest(b"one backbone"), digest(b"another")
WIDTH = 6


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "directory":
        return open_store(str(tmp_path / "a store"))
    server = request.getfixturevalue("s3_server")
    url = server.store_url(f"bucket-{uuid4().hex[:12]}", "")
    ensure_bucket(url, environ=server.environ())
    return open_store(url, environ=server.environ())


def rows(first: int, last: int) -> dict[str, bytes]:
    return {digest(b"%d" % n): digest(b"row %d" % n)[7 : 7 + WIDTH].encode() for n in range(first, last)}


def kept(store: ObjectStore, of: str = OF, width: int | None = WIDTH) -> KeptRows:
    return KeptRows(store, "kept/", of, width)


def test_what_was_put_is_found_and_nothing_else(store: ObjectStore) -> None:
    mine = kept(store)
    assert mine.find(rows(0, 3)) == {}
    mine.put(rows(0, 100))
    mine.put(rows(90, 200))
    assert mine.find([*rows(50, 60), *rows(195, 205)]) == rows(50, 60) | rows(195, 200)
    assert mine.known(rows(150, 300)) == set(rows(150, 200))
    assert mine.all() == rows(0, 200)
    mine.put({})
    assert len(keys_of(store, "kept")) == 2


def test_parts_stay_few_and_lose_nothing(store: ObjectStore) -> None:
    mine = kept(store)
    for number in range(3 * MOST_PARTS):
        mine.put(rows(10 * number, 10 * number + 10))
        assert len(keys_of(store, "kept")) <= MOST_PARTS
    assert mine.all() == rows(0, 30 * MOST_PARTS)


def test_many_put_and_put_together_at_once(store: ObjectStore) -> None:
    for number in range(MOST_PARTS):
        kept(store).put(rows(number, number + 1))
    stop = threading.Event()
    lost: list[int] = []

    def read() -> None:
        while not stop.is_set():
            lost.append(len(rows(0, MOST_PARTS).keys() - kept(store).known(rows(0, MOST_PARTS))))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        at_once(lambda n: kept(store).put(rows(100 + 5 * n, 105 + 5 * n)), 8)
    finally:
        stop.set()
        reader.join()
    assert lost and not any(lost), "a reader sees every row at every moment"
    assert kept(store).all() == rows(0, MOST_PARTS) | rows(100, 140)


class Slow(CountingStore):
    """A listing during which, the first time, somebody puts parts together."""

    merged = False

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        for number, info in enumerate(list(super().list(prefix))):
            if number == 0 and not self.merged:
                self.merged = True
                KeptRows(self._store, prefix, OF, WIDTH).put(rows(100, 101))
            if self.size(info.key) is not None:
                yield info


def test_a_listing_that_misses_the_old_part_and_the_new_one_is_done_again(store: ObjectStore) -> None:
    for number in range(MOST_PARTS):
        kept(store).put(rows(number, number + 1))
    slow = Slow(store)
    assert kept(slow).find(rows(0, MOST_PARTS)) == rows(0, MOST_PARTS)
    assert slow.merged
    assert len(keys_of(store, "kept")) < MOST_PARTS


class Busy(CountingStore):
    """Before each of the first ``times`` parts is read, somebody has put it into another one, which has more."""

    times = 12

    def get_range(self, key: str, start: int, end: int) -> bytes:
        if start == 0 and self.times and len(keys_of(self._store, "kept")) == 1:
            self.times -= 1
            kept(self._store).put(rows(0, 40 - self.times))
            self._store.delete(key)
        return super().get_range(key, start, end)


@pytest.mark.parametrize(("asked", "there"), [(20, 20), (60, 40)], ids=["all of them kept", "some of them kept"])
def test_a_reader_keeps_up_with_parts_that_are_put_together_again_and_again(
    asked: int, there: int, store: ObjectStore
) -> None:
    kept(store).put(rows(0, 20))
    busy = Busy(store)
    assert kept(busy).find(rows(0, asked)) == rows(0, there)
    assert busy.times == 0


def damage_head(data: bytes) -> bytes:
    return data[:44] + bytes([data[44] ^ 1]) + data[45:]


def damage_row(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[:-1],
    "cut in the head": lambda data: data[:20],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"x",
    "head": damage_head,
    "another layout": lambda data: b"PK\3\4" + data,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_part_is_said_and_passed_over(how: str, store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    mine = kept(store)
    mine.put(rows(0, 3))
    [key] = keys_of(store, "kept")
    store.put(key, DAMAGE[how](store.get(key)))
    mine.put(rows(3, 5))
    with caplog.at_level(logging.WARNING):
        assert mine.find(rows(0, 5)) == rows(3, 5)
    assert key in caplog.text
    mine.put(rows(0, 3))
    assert mine.find(rows(0, 5)) == rows(0, 5)


def test_of_a_damaged_row_only_that_row_is_lost(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    mine = kept(store)
    mine.put(rows(0, 50))
    [key] = keys_of(store, "kept")
    store.put(key, damage_row(store.get(key)))
    last = max(rows(0, 50))
    with caplog.at_level(logging.WARNING):
        assert mine.find(rows(0, 50)) == {name: row for name, row in rows(0, 50).items() if name != last}
    assert "1 rows" in caplog.text


def test_rows_of_something_else_or_of_another_width_are_never_taken(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    kept(store, OTHER).put(rows(0, 3))
    assert kept(store).find(rows(0, 3)) == {}
    assert OTHER in caplog.text
    kept(store, OF, WIDTH + 2).put({name: row + b"xx" for name, row in rows(3, 6).items()})
    assert kept(store).find(rows(3, 6)) == {}
    assert kept(store, OF, WIDTH + 2).known(rows(0, 6)) == set(rows(3, 6))
    assert "8 bytes, not 6" in caplog.text


def test_what_cannot_be_trusted_goes_when_parts_are_put_together(store: ObjectStore) -> None:
    store.put("kept/old.npz", b"PK\3\4")
    for number in range(MOST_PARTS + 1):
        kept(store).put(rows(number, number + 1))
    assert "kept/old.npz" not in keys_of(store, "kept")
    assert kept(store).all() == rows(0, MOST_PARTS + 1)


def test_few_names_cost_few_bytes_however_much_is_kept(store: ObjectStore) -> None:
    """What is read: 36 bytes for every row there is, and the rows that are asked for with a few between them."""
    read: list[int] = []
    wanted = list(rows(0, 5))
    for count in (500, 2000):
        wide = {name: row * 100 for name, row in rows(0, count).items()}
        KeptRows(store, f"kept-{count}/", OF, 100 * WIDTH).put(wide)
        counting = CountingStore(store)
        assert len(KeptRows(counting, f"kept-{count}/", OF, 100 * WIDTH).find(wanted)) == 5
        assert counting.reads <= 2 + 5
        read.append(counting.read_bytes - 36 * count)
    assert max(read) < 5 * (65_536 + 100 * WIDTH), "of 1,200,000 that are kept"


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), st.binary(min_size=3, max_size=3)), max_size=40))
def test_any_names_are_kept_even_those_that_end_in_zeros(pairs: list[tuple[bytes, bytes]]) -> None:
    mine = KeptRows(MemoryStore(), "kept/", OF, 3)
    put = {f"sha256:{name.hex()}": row for name, row in pairs} | {f"sha256:{'00' * 32}": b"abc"}
    mine.put(put)
    assert mine.all() == put
    assert mine.find([f"sha256:{'ff' * 32}"]) == {k: v for k, v in put.items() if k == f"sha256:{'ff' * 32}"}
