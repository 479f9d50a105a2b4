"""The promises of `edgeloop.clients.objects`, kept by memory, a directory and a real S3 server alike."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgeloop.clients.objects import (
    BucketMissing,
    DirectoryStore,
    MemoryStore,
    ObjectMissing,
    ObjectStore,
    StoreDenied,
    StoreUnavailable,
    ensure_bucket,
    open_store,
)
from edgeloop.errors import BadInput
from tests.servers.ceph import S3Server
from tests.servers.ports import free_port, wait_until

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


def _s3_url(server: S3Server, prefix: str = "") -> str:
    url = server.store_url(f"bucket-{uuid4().hex[:12]}", prefix)
    assert ensure_bucket(url, environ=server.environ())
    return url


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "directory":
        return open_store(f"file://{tmp_path}/store")
    server = request.getfixturevalue("s3_server")
    return open_store(_s3_url(server, "some prefix/é"), environ=server.environ())


def _keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [found.key for found in store.list(prefix)]


def _at_once(work: Callable[[int], object], count: int = 16) -> list[object]:
    gate = threading.Barrier(count)

    def one(number: int) -> object:
        gate.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_what_is_put_is_there_and_a_second_put_replaces_it(store: ObjectStore) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"other")
    assert store.get("a/b") == b"other"
    assert store.size("a/b") == 5


def test_any_printable_key_comes_back_as_it_was_written(store: ObjectStore) -> None:
    for key in KEYS:
        store.put(key, key.encode())
    assert _keys(store) == sorted(KEYS)
    assert [store.get(key).decode() for key in KEYS] == KEYS
    assert _keys(store, "captures/digits/") == sorted(
        key for key in KEYS if key.startswith("captures/digits/")
    )
    assert _keys(store, "captures/digits") == _keys(store, "captures/digits/")


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
    assert _keys(store, "captures/none") == []
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
    assert _keys(store) == []
    store.put("a", b"a file where a folder was")
    assert _keys(store) == ["a"]


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
        won = _at_once(lambda number, key=key: store.create(key, b"%d" % number))  # type: ignore[misc]
        assert won.count(True) == 1
        assert store.get(key) == b"%d" % won.index(True)


def test_of_many_putters_one_wins_whole(store: ObjectStore) -> None:
    bodies = [bytes([number]) * 200_000 for number in range(16)]
    _at_once(lambda number: store.put("same", bodies[number]))
    assert store.get("same") in bodies


def test_move_is_idempotent(store: ObjectStore) -> None:
    store.put("new/a%20 b", b"x")
    for _ in range(2):
        store.move("new/a%20 b", "done/é b")
        assert _keys(store) == ["done/é b"]
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
    _at_once(lambda _: store.move("from", "to"), 4)
    assert _keys(store) == ["to"]


def test_a_listing_of_many_is_complete_and_sorted(store: ObjectStore) -> None:
    keys = [f"many/{number % 7}{'-/'[number % 2]}{number:04}" for number in range(1105)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b"."), keys))
    assert _keys(store, "many/") == sorted(keys)
    assert _keys(store, "many/1") == sorted(key for key in keys if key.startswith("many/1/"))


def test_a_listing_says_size_and_time(store: ObjectStore) -> None:
    store.put("a", b"123")
    (found,) = store.list("")
    assert found.size == 3
    assert abs(found.modified - datetime.now(UTC)) < timedelta(seconds=30)


def test_check_leaves_nothing_behind(store: ObjectStore) -> None:
    store.check()
    assert _keys(store) == []


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
    assert _keys(store) == ["a/b", "z"]


# --- the directory


def test_a_plain_path_a_file_url_and_a_missing_directory_are_the_same_store(tmp_path: Path) -> None:
    open_store(str(tmp_path / "a b" / "ü")).put("k", b"x")
    assert open_store(f"file://{tmp_path}/a%20b/%C3%BC").get("k") == b"x"
    assert open_store(str(tmp_path / "a b/ü")).url == str(tmp_path / "a b" / "ü")


WRITER = """
import itertools, sys
from edgeloop.clients.objects import open_store
store = open_store(sys.argv[1])
print("writing", flush=True)
for number in itertools.count():
    store.put(f"k/{number % 3}", bytes([number % 256]) * 3_000_000)
    store.create(f"c/{number}", bytes([number % 256]) * 3_000_000)
"""


def _kill_while_it_writes(store: DirectoryStore, hidden: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, store.url], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        wait_until("a first object", lambda: _keys(store) != [])
        wait_until("a write under way", lambda: any(hidden.iterdir()), every=0)
        writer.send_signal(signal.SIGKILL)


def test_a_killed_writer_leaves_no_half_object(tmp_path: Path) -> None:
    left_behind = 0
    for turn in range(6):
        store = DirectoryStore(tmp_path / str(turn))
        hidden = tmp_path / str(turn) / ".edgeloop-writing"
        _kill_while_it_writes(store, hidden)
        left_behind += any(hidden.iterdir())
        for found in store.list(""):
            body = store.get(found.key)
            assert found.size == len(body) == 3_000_000
            assert body == body[:1] * 3_000_000
    assert left_behind, "no kill came in the middle of a write: the test shows nothing"


def test_bytes_are_on_disk_before_their_name_and_both_before_the_call_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    for name, real in (("fsync", os.fsync), ("replace", os.replace), ("link", os.link)):

        def recorded(*arguments: Any, name: str = name, real: Any = real) -> None:
            on = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else str(arguments[1])
            events.append(f"{name} {Path(on).relative_to(tmp_path)}")
            real(*arguments)

        monkeypatch.setattr(os, name, recorded)
    store = DirectoryStore(tmp_path)
    store.put("new/put", b"x")
    store.create("new/created", b"x")
    store.move("new/put", "new/moved")
    shown = [event if ".edgeloop-writing" not in event else "fsync the bytes" for event in events]
    assert shown == [
        *("fsync the bytes", "fsync .", "replace new/put", "fsync new"),
        *("fsync the bytes", "link new/created", "fsync new"),
        *("replace new/moved", "fsync new"),
    ]


def test_what_a_killed_writer_left_is_swept_when_it_is_old(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    old, young = tmp_path / ".edgeloop-writing" / "old", tmp_path / ".edgeloop-writing" / "young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    assert _keys(store) == []
    DirectoryStore(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)
    with pytest.raises(BadInput, match="reserved"):
        store.get(".edgeloop-writing/young")


def test_writers_and_deleters_of_one_folder_do_not_trip_each_other(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)

    def come_and_go(number: int) -> None:
        for turn in range(30):
            store.put(f"deep/folder/{number}", b"%d" % turn)
            assert store.get(f"deep/folder/{number}") == b"%d" % turn
            store.delete(f"deep/folder/{number}")

    _at_once(come_and_go, 6)
    assert _keys(store) == []


def test_a_full_disk_says_so() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    store = DirectoryStore.__new__(DirectoryStore)
    store.url = "/full"
    with (
        pytest.raises(StoreUnavailable, match=r"/full .*No space left on device"),
        store._wrapped("k"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")


# --- S3


def _every_call(store: ObjectStore) -> list[Callable[[], object]]:
    return [
        lambda: store.get("k"),
        lambda: store.get_range("k", 0, 1),
        lambda: store.put("k", b""),
        lambda: store.create("k", b""),
        lambda: store.size("k"),
        lambda: store.delete("k"),
        lambda: list(store.list("k")),
        lambda: store.move("k", "l"),
    ]


@pytest.mark.s3
def test_wrong_credentials_are_told_from_everything_else(s3_server: S3Server) -> None:
    url = _s3_url(s3_server)
    for wrong in ({"AWS_ACCESS_KEY_ID": "nobody"}, {"AWS_SECRET_ACCESS_KEY": "not it"}):
        store = open_store(url, environ=s3_server.environ() | wrong)
        for call in _every_call(store):
            with pytest.raises(StoreDenied, match=r"s3://bucket-.*'k"):
                call()
        with pytest.raises(StoreDenied) as failed:
            ensure_bucket(url, environ=s3_server.environ() | wrong)
        assert s3_server.secret_key not in str(failed.value)


@pytest.mark.s3
def test_a_stray_session_token_in_the_process_is_not_sent(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody else")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody else")
    open_store(_s3_url(s3_server), environ=s3_server.environ()).check()


@pytest.mark.s3
def test_a_missing_bucket_is_not_a_missing_object(s3_server: S3Server) -> None:
    store = open_store(s3_server.store_url("never-made"), environ=s3_server.environ())
    for call in [*_every_call(store), store.check]:
        with pytest.raises(BucketMissing, match="never-made"):
            call()


@pytest.mark.s3
def test_ensure_bucket_is_idempotent_and_refuses_bad_names(s3_server: S3Server) -> None:
    url = _s3_url(s3_server)
    assert not ensure_bucket(url, environ=s3_server.environ())
    with pytest.raises(BadInput, match=r"a\.\.b"):
        ensure_bucket(s3_server.store_url("a..b"), environ=s3_server.environ())


@pytest.mark.s3
def test_nothing_is_lost_when_the_gateway_is_killed(s3_server: S3Server) -> None:
    store = open_store(_s3_url(s3_server), environ=s3_server.environ())
    keys = [f"k/{number}" for number in range(20)]
    for key in keys:
        assert store.create(key, key.encode())
    s3_server.kill_gateway()
    try:
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            store.get(keys[0])
    finally:
        s3_server.start_gateway()
    assert [store.get(key).decode() for key in keys] == keys
    assert not store.create(keys[0], b"again")


ENVIRON = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield listener.getsockname()[1]


def _unavailable_within(url: str, seconds: float, reason: str) -> None:
    store = open_store(url, environ=ENVIRON)
    for call in (store.check, lambda: ensure_bucket(url, environ=ENVIRON)):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match=rf"s3://bucket\?endpoint=http://127.*{reason}") as failed:
            call()
        assert time.monotonic() - started < seconds
        assert "\n" not in str(failed.value)
        assert "a-secret" not in str(failed.value)


def test_an_endpoint_that_is_not_there_is_unavailable_within_seconds() -> None:
    _unavailable_within(f"s3://bucket?endpoint=http://127.0.0.1:{free_port()}", 5, "[Cc]onnection refused")


def test_an_endpoint_that_never_answers_is_unavailable_within_seconds(silent_port: int) -> None:
    _unavailable_within(f"s3://bucket?endpoint=http://127.0.0.1:{silent_port}&timeout=0.5", 10, "[Tt]ime")


# --- URLs


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        (" s3://bucket", "spaces"),
        ("gs://bucket", "neither"),
        ("http://host/bucket", "neither"),
        ("file://host/dir", "local directory"),
        ("s3://", "s3://bucket"),
        ("s3://Bad_Bucket", "s3://bucket"),
        ("s3://bucket?endpoint=127.0.0.1:9000", "endpoint"),
        ("s3://bucket?endpoint=http://h:1/path", "endpoint"),
        ("s3://bucket?colour=blue", "colour"),
        ("s3://bucket?timeout=soon", "soon"),
        ("s3://bucket?timeout=nan", "nan"),
        ("s3://bucket/a/../b", "part"),
    ],
)
def test_a_url_that_says_nothing_usable_is_refused(url: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as failed:
        open_store(url, environ=ENVIRON)
    assert "\n" not in str(failed.value)


def test_secrets_are_never_shown() -> None:
    with pytest.raises(BadInput) as failed:
        open_store("s3://key:hidden@bucket", environ=ENVIRON)
    assert "hidden" not in str(failed.value)
    store = open_store("s3://bucket/p", environ=ENVIRON | {"AWS_SESSION_TOKEN": "a-token"})
    shown = f"{store.url} {store!r} {store.table('t')!r} {vars(store)!r}"
    assert "a-secret" not in shown
    assert "a-token" not in shown
    assert store.table("t").storage_options["aws_session_token"] == "a-token"


@pytest.mark.parametrize("name", sorted(ENVIRON))
def test_missing_credentials_are_named(name: str) -> None:
    environ = {key: value for key, value in ENVIRON.items() if key != name}
    with pytest.raises(BadInput, match=name):
        open_store("s3://bucket", environ=environ)


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        open_store(str(tmp_path / "file"))
    with pytest.raises(BadInput, match="cannot be created"):
        open_store(str(tmp_path / "file" / "below"))


def test_plain_http_needs_an_http_endpoint() -> None:
    def allowed(url: str) -> str:
        return open_store(url, environ=ENVIRON).table("t").storage_options["allow_http"]

    assert allowed("s3://bucket?endpoint=http://127.0.0.1:1") == "true"
    assert allowed("s3://bucket?endpoint=https://127.0.0.1:1") == allowed("s3://bucket") == "false"


# --- memory and directory, step by step

_part = st.sampled_from(["a", "a-", "a.b", "b", "é", "Z", "%2F"])
_key = st.lists(_part, min_size=1, max_size=3).map("/".join)


class SameBehaviour(RuleBasedStateMachine):
    """Whatever is done to both stores, they answer alike and list alike."""

    def __init__(self) -> None:
        super().__init__()
        self.directory: ObjectStore
        self.memory: ObjectStore

    @initialize()
    def start(self) -> None:
        assert MACHINE_ROOT is not None
        self.memory, self.directory = MemoryStore(), DirectoryStore(MACHINE_ROOT / uuid4().hex)

    def _both(self, call: Callable[[ObjectStore], object]) -> None:
        answers: list[object] = []
        for store in (self.memory, self.directory):
            try:
                answers.append(call(store))
            except (BadInput, ObjectMissing) as error:
                answers.append(type(error))
        assert answers[0] == answers[1]

    @rule(key=_key, data=st.binary(max_size=5))
    def put(self, key: str, data: bytes) -> None:
        self._both(lambda store: store.put(key, data))

    @rule(key=_key, data=st.binary(max_size=5))
    def create(self, key: str, data: bytes) -> None:
        self._both(lambda store: store.create(key, data))

    @rule(key=_key)
    def delete(self, key: str) -> None:
        self._both(lambda store: store.delete(key))

    @rule(source=_key, goal=_key)
    def move(self, source: str, goal: str) -> None:
        self._both(lambda store: store.move(source, goal))

    @rule(key=_key, start=st.integers(-1, 6), end=st.integers(-1, 6))
    def read(self, key: str, start: int, end: int) -> None:
        self._both(lambda store: (store.get(key), store.size(key)))
        self._both(lambda store: store.get_range(key, start, end))

    @rule(prefix=_key)
    def list_folder(self, prefix: str) -> None:
        self._both(lambda store: _keys(store, prefix))

    @invariant()
    def same_objects(self) -> None:
        if hasattr(self, "memory"):
            self._both(lambda store: [(one.key, one.size, store.get(one.key)) for one in store.list("")])


MACHINE_ROOT: Path | None = None


def test_memory_and_directory_cannot_be_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "MACHINE_ROOT", tmp_path)
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        SameBehaviour, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )
