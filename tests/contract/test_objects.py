"""The promises of `edgeloop.clients.objects`, kept by memory, a directory and a real S3 server alike."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgeloop.clients.objects import (
    DirectoryStore,
    MemoryStore,
    ObjectMissing,
    ObjectStore,
    StoreUnavailable,
    open_store,
)
from edgeloop.errors import BadInput
from tests.contract.stores import at_once, keys_of, s3_url

KEYS = [
    "captures/digits/a b.parquet",
    "captures/digits/day=2026-11-21/x.parquet",
    "captures/digits/100%.bin",
    "captures/digits/x%2Fy",
    "captures/digits/größe-é-日本.json",
    "captures/digits/a+b&c?d#1",
    "captures/digits-2/other",
    "captures/digits/.hidden",
    "top",
]


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "directory":
        return open_store(f"file://{tmp_path}/store")
    server = request.getfixturevalue("s3_server")
    return open_store(s3_url(server, "some prefix/é"), environ=server.environ())


def test_what_is_put_is_there_and_a_second_put_replaces_it(store: ObjectStore) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"other")
    assert store.get("a/b") == b"other"
    assert store.size("a/b") == 5


def test_any_printable_key_comes_back_as_it_was_written(store: ObjectStore) -> None:
    for key in KEYS:
        store.put(key, key.encode())
    assert keys_of(store) == sorted(KEYS)
    assert [store.get(key).decode() for key in KEYS] == KEYS
    assert keys_of(store, "captures/digits/") == sorted(key for key in KEYS if key.startswith("captures/digits/"))
    assert keys_of(store, "captures/digits") == keys_of(store, "captures/digits/")


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a\nb", "a\x00b", "\ud800", "a" * 256, "a/" * 500 + "a"],
)
def test_a_key_that_not_every_store_can_hold_is_refused(store: ObjectStore, key: str) -> None:
    for call in (
        store.get,
        store.size,
        store.delete,
        lambda k: store.put(k, b""),
        lambda k: store.create(k, b""),
    ):
        with pytest.raises(BadInput, match="object key"):
            call(key)
    with pytest.raises(BadInput):
        store.move("a", key)
    with pytest.raises(BadInput):
        store.move(key, "a")
    with pytest.raises(BadInput):
        store.table(key + "/")


def test_a_missing_object_is_named(store: ObjectStore) -> None:
    for call in (store.get, lambda key: store.get_range(key, 0, 1), lambda key: store.get_range(key, 1, 1)):
        with pytest.raises(ObjectMissing, match="captures/none"):
            call("captures/none")
    assert store.size("captures/none") is None
    assert keys_of(store, "captures/none") == []
    store.put("captures/folder/x", b"")
    assert store.size("captures/folder") is None
    with pytest.raises(ObjectMissing):
        store.get("captures/folder")
    with pytest.raises(ObjectMissing):
        store.get("captures/folder/x/y")
    assert store.size("captures/folder/x/y") is None


def test_delete_is_idempotent_and_frees_the_key(store: ObjectStore) -> None:
    store.put("a/b/c", b"x")
    store.delete("a/b/c")
    store.delete("a/b/c")
    assert keys_of(store) == []
    store.put("a", b"a file where a folder was")
    assert keys_of(store) == ["a"]


def test_ranges_are_half_open_and_clipped(store: ObjectStore) -> None:
    store.put("r", b"0123456789")
    store.put("empty", b"")
    wanted = {
        (0, 10): b"0123456789",
        (0, 1): b"0",
        (9, 10): b"9",
        (4, 99): b"456789",
        (3, 3): b"",
        (10, 12): b"",
    }
    assert {(start, end): store.get_range("r", start, end) for start, end in wanted} == wanted
    assert store.get_range("r", 50, 60) == b""
    assert store.get_range("empty", 0, 5) == b""
    for start, end in ((-1, 2), (3, 2)):
        with pytest.raises(BadInput, match="range"):
            store.get_range("r", start, end)


def test_empty_and_large_objects(store: ObjectStore) -> None:
    large = os.urandom(5 * 1024 * 1024 + 7)
    store.put("large", large)
    assert store.create("large-too", large)
    assert store.create("empty", b"")
    assert not store.create("empty", b"x")
    assert store.get("large") == large == store.get("large-too")
    assert store.get_range("large", 5_000_000, 6_000_000) == large[5_000_000:]
    assert (store.get("empty"), store.size("empty")) == (b"", 0)


def test_of_many_creators_one_wins_and_its_bytes_stay(store: ObjectStore) -> None:
    for turn in range(5):
        key = f"race/{turn}"
        won = at_once(lambda number, key=key: store.create(key, b"%d" % number))  # type: ignore[misc]
        assert won.count(True) == 1
        assert store.get(key) == b"%d" % won.index(True)


def test_of_many_putters_one_wins_whole(store: ObjectStore) -> None:
    bodies = [bytes([number]) * 200_000 for number in range(16)]
    at_once(lambda number: store.put("same", bodies[number]))
    assert store.get("same") in bodies


def test_move_is_idempotent(store: ObjectStore) -> None:
    store.put("new/a%20 b", b"x")
    for _ in range(2):
        store.move("new/a%20 b", "done/é b")
        assert keys_of(store) == ["done/é b"]
    store.put("new/c", b"y")
    store.move("new/c", "done/é b")
    assert store.get("done/é b") == b"y"
    store.move("done/é b", "done/é b")
    assert store.get("done/é b") == b"y"
    with pytest.raises(ObjectMissing, match="gone"):
        store.move("gone", "gone-too")
    with pytest.raises(ObjectMissing):
        store.move("gone", "gone")
    with pytest.raises(ObjectMissing):
        store.move("done", "done")


def test_two_movers_leave_one_object(store: ObjectStore) -> None:
    store.put("from", b"x")
    at_once(lambda _: store.move("from", "to"), 4)
    assert keys_of(store) == ["to"]


def test_a_listing_of_many_is_complete_and_sorted(store: ObjectStore) -> None:
    keys = [f"many/{number % 7}{'-/'[number % 2]}{number:04}" for number in range(1105)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"."), keys))
    assert keys_of(store, "many/") == sorted(keys)
    assert keys_of(store, "many/1") == sorted(key for key in keys if key.startswith("many/1/"))


def test_a_listing_says_size_and_time(store: ObjectStore) -> None:
    store.put("a", b"123")
    (found,) = store.list("")
    assert found.size == 3
    assert abs(found.modified - datetime.now(UTC)) < timedelta(seconds=30)


def test_check_leaves_nothing_behind(store: ObjectStore) -> None:
    store.check()
    assert keys_of(store) == []


def test_check_finds_out_a_store_that_ignores_conditional_create() -> None:
    class Careless(MemoryStore):
        def create(self, key: str, data: bytes) -> bool:
            self.put(key, data)
            return True

    with pytest.raises(StoreUnavailable, match=r"store memory .* conditional"):
        Careless().check()


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_a_key_is_not_also_a_folder(kind: str, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path)
    store.put("a/b", b"x")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(BadInput, match="object and a folder"):
            store.put(key, b"y")
        with pytest.raises(BadInput, match="object and a folder"):
            store.create(key, b"y")
    store.put("z", b"z")
    with pytest.raises(BadInput, match="object and a folder"):
        store.move("z", "a")
    assert keys_of(store) == ["a/b", "z"]
