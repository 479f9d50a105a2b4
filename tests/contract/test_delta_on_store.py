"""A samples table needs three things of its store: commits that cannot overwrite each other, merges that
change nothing the second time, and reads of a few columns. Shown on a directory and on a real S3 server."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from edgeloop.clients.objects import MemoryStore, ObjectStore, TableLocation, ensure_bucket, open_store
from edgeloop.errors import BadInput

pa = pytest.importorskip("pyarrow")
deltalake = pytest.importorskip("deltalake")


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "directory":
        return open_store(str(tmp_path / "a store"))
    server = request.getfixturevalue("s3_server")
    url = server.store_url(f"bucket-{uuid4().hex[:12]}", "some prefix/é")
    ensure_bucket(url, environ=server.environ())
    return open_store(url, environ=server.environ())


def _rows(first: int, last: int, by: str = "") -> Any:
    ids = [f"sample-{number}" for number in range(first, last)]
    numbers = pa.array(range(first, last), pa.int64())
    return pa.table({"sample_id": ids, "number": numbers, "by": pa.array([by] * len(ids), pa.string())})


def _open(at: TableLocation) -> Any:
    return deltalake.DeltaTable(at.uri, storage_options=at.storage_options)


def _write(at: TableLocation, rows: Any) -> None:
    deltalake.write_deltalake(at.uri, rows, mode="append", storage_options=at.storage_options)


def _merge_into(table: Any, rows: Any) -> dict[str, Any]:
    same = "old.sample_id = new.sample_id"
    merge = table.merge(rows, predicate=same, source_alias="new", target_alias="old")
    return dict(merge.when_not_matched_insert_all().execute())


def _merge(at: TableLocation, rows: Any) -> dict[str, Any]:
    return _merge_into(_open(at), rows)


def _numbers(at: TableLocation, where: list[tuple[str, str, Any]] | None = None) -> list[int]:
    found = _open(at).to_pyarrow_table(columns=["number"], filters=where)
    return sorted(found["number"].to_pylist())


def test_a_table_grows_by_append_and_is_listed_as_objects(store: ObjectStore) -> None:
    at = store.table("tables/some samples/")
    _write(at, _rows(0, 3))
    _write(at, _rows(3, 5))
    assert _numbers(at) == [0, 1, 2, 3, 4]
    if not isinstance(store, MemoryStore):
        keys = [found.key for found in store.list("tables/some samples")]
        assert "tables/some samples/_delta_log/00000000000000000001.json" in keys


def test_a_merge_twice_changes_nothing_the_second_time(store: ObjectStore) -> None:
    at = store.table("samples")
    _write(at, _rows(0, 10, "first"))
    files = set(_open(at).file_uris())
    assert _merge(at, _rows(5, 15, "second"))["num_target_rows_inserted"] == 5
    grown = set(_open(at).file_uris())
    assert files < grown, "an insert-only merge adds files and rewrites none"
    assert _merge(at, _rows(5, 15, "third"))["num_target_rows_inserted"] == 0
    assert set(_open(at).file_uris()) == grown
    assert _numbers(at) == list(range(15))
    assert _numbers(at, [("by", "=", "first")]) == list(range(10))


def _ingest(at: TableLocation, name: str, gate: Any, conflicts: Any) -> None:
    from deltalake.exceptions import CommitFailedError

    lost = 0
    for turn in range(6):
        rows, table = _rows(turn * 10, turn * 10 + 30, name), _open(at)
        gate.wait(60)  # both have read the same version now, so one of them must lose
        try:
            _merge_into(table, rows)
        except CommitFailedError:
            lost += 1
            _merge(at, rows)
    conflicts.put(lost)


def test_two_processes_merge_the_same_samples_and_each_is_there_once(store: ObjectStore) -> None:
    at = store.table("samples")
    _write(at, _rows(0, 1).slice(0, 0))
    spawn = multiprocessing.get_context("spawn")
    gate, conflicts = spawn.Barrier(2), spawn.Queue()
    writers = [spawn.Process(target=_ingest, args=(at, name, gate, conflicts)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert _numbers(at) == list(range(80))
    assert sum(conflicts.get(timeout=10) for _ in writers) == 6


def test_of_two_commits_to_one_version_the_second_is_refused(store: ObjectStore) -> None:
    from deltalake.exceptions import CommitFailedError

    at = store.table("samples")
    _write(at, _rows(0, 5))
    early = _open(at)
    _merge(at, _rows(5, 10))
    with pytest.raises(CommitFailedError, match="rerun"):
        _merge_into(early, _rows(5, 10))
    assert _numbers(at) == list(range(10))


def test_a_table_under_a_percent_sign_is_refused(store: ObjectStore) -> None:
    with pytest.raises(BadInput, match="'%'"):
        store.table("tables/100%")
