"""What only a directory has to prove: kills, power cuts, a full disk, folders that come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.objects import DirectoryStore, StoreUnavailable, open_store
from edgeloop.errors import BadInput
from tests.contract.stores import at_once, keys_of
from tests.servers.ports import wait_until


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
        try:
            wait_until("a first object", lambda: keys_of(store) != [], seconds=120)
            wait_until("a write under way", lambda: any(hidden.iterdir()), seconds=120, every=0)
        finally:  # else it would write for ever
            writer.kill()


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
    assert keys_of(store) == []
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

    at_once(come_and_go, 6)
    assert keys_of(store) == []


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
