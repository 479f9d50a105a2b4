"""The tables take a record once, whoever writes it and how often, and every version can be read again."""

from __future__ import annotations

import multiprocessing
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from edgeloop.clients.objects import DirectoryStore
from edgeloop.samples.records import Label, Sample
from edgeloop.samples.segments import to_row
from edgeloop.samples.table import LostVersion, Tables, TableUnavailable, arrow_schema, compact, not_empty, one_of
from tests.unit.samples.make import label, sample


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def tables(root: Path) -> Tables:
    return tables_at(root)


def tables_at(root: Path) -> Tables:
    return Tables("rater", DirectoryStore(root).table)


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [to_row(sample(n, humidity=n)) for n in numbers]


def ids(found: list[dict[str, Any]]) -> list[str]:
    return sorted(row["sample_id"] for row in found)


def test_an_absent_table_is_empty(tables: Tables) -> None:
    assert tables.read("samples") == []
    assert tables.read("samples", ["sample_id"]) == []
    assert tables.version("samples") is None


def test_nothing_to_merge_makes_no_table(tables: Tables) -> None:
    assert tables.merge("samples", [], Sample) == 0
    assert tables.version("samples") is None


def test_a_row_comes_back_as_it_went(tables: Tables) -> None:
    sent = to_row(sample(1, humidity=3, embedding=b"\0\1", confidence=0.25))
    tables.merge("samples", [sent], Sample)
    assert tables.read("samples") == [sent]


def test_merging_twice_inserts_once(tables: Tables) -> None:
    assert tables.merge("samples", rows(0, 1, 2), Sample) == 3
    assert tables.merge("samples", rows(1, 2, 3), Sample) == 1
    assert tables.merge("samples", rows(0, 1, 2, 3), Sample) == 0
    assert ids(tables.read("samples")) == ids(rows(0, 1, 2, 3))


def test_a_duplicate_within_one_merge_is_inserted_once(tables: Tables) -> None:
    assert tables.merge("samples", rows(1, 1, 1), Sample) == 1
    assert len(tables.read("samples")) == 1


def test_a_row_is_never_rewritten(tables: Tables) -> None:
    first = to_row(sample(1))
    tables.merge("samples", [first], Sample)
    tables.merge("samples", [first | {"prediction": "another"}], Sample)
    assert tables.read("samples") == [first]


def test_labels_of_one_sample_stand_beside_each_other(tables: Tables) -> None:
    of = sample(1)
    given = [label(of, "1"), label(of, "2"), label(of, "1", "device"), label(of, "1", seconds=1), label(of, "1")]
    assert tables.merge("labels", [to_row(x) for x in given], Label) == 4


def test_an_old_version_reads_as_it_was(tables: Tables) -> None:
    seen: dict[int, list[str]] = {}
    for number in range(4):
        tables.merge("samples", rows(number), Sample)
        version = tables.version("samples")
        assert version is not None
        seen[version] = ids(tables.read("samples"))
    assert len(seen) == 4
    for version, then in seen.items():
        assert ids(tables.read("samples", ["sample_id"], version)) == then


def test_a_version_that_is_gone_is_named_and_not_taken_for_an_empty_one(tables: Tables) -> None:
    for version in (0, 7):
        with pytest.raises(LostVersion, match=rf"version {version} of table samples of rater cannot be read .*cleared"):
            tables.read("samples", version=version)
        tables.merge("samples", rows(version), Sample)


def test_versions_are_kept_for_ever_also_of_tables_made_before(tables: Tables, root: Path) -> None:
    """By itself Delta forgets versions that are older than a month, when it next writes a checkpoint."""
    place = DirectoryStore(root).table("tables/rater/labels")
    DeltaTable.create(place.uri, schema=arrow_schema(Label), storage_options=place.storage_options)
    tables.merge("labels", [to_row(label(sample(1), "1"))], Label)
    tables.merge("samples", rows(1), Sample)
    for name in ("labels", "samples"):
        configuration = DeltaTable(DirectoryStore(root).table(f"tables/rater/{name}").uri).metadata().configuration
        assert configuration["delta.enableExpiredLogCleanup"] == "false", name
    before = tables.version("labels")
    tables.merge("labels", [to_row(label(sample(2), "1"))], Label)
    assert tables.version("labels") == (before or 0) + 1, "set once"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction at four small files."""
    monkeypatch.setattr("edgeloop.samples.table.COMPACT_FILES", 4)


def files_of(root: Path, name: str = "samples") -> int:
    return len(DeltaTable(DirectoryStore(root).table(f"tables/rater/{name}").uri).file_uris())


def test_compaction_keeps_rows_and_every_version(tables: Tables, root: Path, soon: None) -> None:
    seen: dict[int, list[dict[str, Any]]] = {}
    for number in range(11):
        tables.merge("samples", rows(number), Sample)
        compact(tables, anybody)
        version = tables.version("samples")
        assert version is not None
        seen[version] = sorted(tables.read("samples"), key=lambda r: str(r["sample_id"]))
        assert files_of(root) < 4
    for version, then in seen.items():
        assert sorted(tables.read("samples", version=version), key=lambda r: str(r["sample_id"])) == then
    for version in range(max(seen) + 1):
        tables.read("samples", ["sample_id"], version)
    assert tables.merge("samples", rows(*range(12)), Sample) == 1, "still once each"


def anybody(_table: str) -> bool:
    return True


def test_who_may_not_compact_does_not(tables: Tables, root: Path, soon: None) -> None:
    for number in range(4):
        tables.merge("samples", rows(number), Sample)
    assert compact(tables, lambda _: False) == []
    assert files_of(root) == 4
    assert compact(tables, lambda table: table == "samples") == ["samples"]


def test_few_files_and_absent_tables_are_left_alone(tables: Tables, root: Path, soon: None) -> None:
    for number in range(3):
        tables.merge("samples", rows(number), Sample)
    before = tables.version("samples")
    assert compact(tables, anybody) == []
    assert tables.version("samples") == before
    tables.merge("samples", rows(3), Sample)
    assert compact(tables, anybody) == ["samples"]
    assert compact(tables, anybody) == []
    assert files_of(root) == 1


def test_compaction_between_other_writers_loses_nothing(root: Path, soon: None) -> None:
    tables_at(root).merge("samples", rows(99), Sample)

    def write(number: int) -> None:
        mine = tables_at(root)
        mine.merge("samples", rows(number), Sample)
        mine.compact("samples", lambda _: number == 6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(12)))
    assert ids(tables_at(root).read("samples")) == ids(rows(*range(12), 99))


def test_only_the_rows_asked_for_are_read(tables: Tables) -> None:
    tables.merge("samples", rows(0, 1, 2), Sample)
    tables.merge("samples", [to_row(sample(3, payload=b""))], Sample)
    wanted = [sample(1).sample_id, sample(3, payload=b"").sample_id, "unknown"]
    assert ids(tables.read("samples", where=one_of("sample_id", wanted))) == sorted(wanted[:2])
    assert tables.read("samples", where=one_of("sample_id", wanted[:1])) == rows(1)
    assert ids(tables.read("samples", ["sample_id"], where=not_empty("payload"))) == ids(rows(0, 1, 2))
    assert tables.read("samples", ["group"], where=one_of("sample_id", wanted[:1])) == [{"group": "group-1"}]
    assert tables.read("samples", where=one_of("sample_id", [])) == []
    assert ids(tables.read("samples", ["sample_id"], 1, not_empty("payload"))) == ids(rows(0, 1, 2))
    assert tables.read("labels", where=one_of("sample_id", wanted)) == []


def test_only_the_columns_asked_for_are_read(tables: Tables) -> None:
    tables.merge("samples", rows(1), Sample)
    assert tables.read("samples", ["group"]) == [{"group": "group-1"}]


def test_services_do_not_share_tables(root: Path) -> None:
    tables_at(root).merge("samples", rows(1), Sample)
    assert Tables("sorter", DirectoryStore(root).table).read("samples") == []


def test_concurrent_writers_in_threads_land_once_each(tables: Tables) -> None:
    batches = [rows(*range(n, n + 4)) for n in range(0, 8, 2)] * 2
    with ThreadPoolExecutor(4) as pool:
        inserted = list(pool.map(lambda batch: tables.merge("samples", batch, Sample), batches))
    assert ids(tables.read("samples")) == ids(rows(*range(10)))
    assert sum(inserted) == 10


def merge_in_process(root: Path, numbers: list[int]) -> None:
    tables = tables_at(root)
    for number in numbers:
        tables.merge("samples", rows(number, number + 1), Sample)


def test_concurrent_writers_in_processes_land_once_each(root: Path, tables: Tables) -> None:
    """Even the first two, which both find that there is no table."""
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=merge_in_process, args=(root, list(range(n, n + 4)))) for n in (0, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert ids(tables.read("samples")) == ids(rows(*range(7)))


def test_a_table_that_does_not_commit_says_so(tables: Tables, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.samples.table.time.sleep", lambda _: None)
    tables.merge("samples", rows(1), Sample)
    log = root / "tables" / "rater" / "samples" / "_delta_log"
    for path in log.iterdir():
        path.write_text("not a commit", encoding="utf-8")
    with pytest.raises(TableUnavailable, match="table samples of rater did not commit"):
        tables.merge("samples", rows(2), Sample)


class Nowhere:
    """A table in a store that nobody answers for."""

    uri = "s3://bucket/table"

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.storage_options: dict[str, str] | None = {
            "aws_endpoint": f"http://127.0.0.1:{port}",
            "aws_access_key_id": "key",
            "aws_secret_access_key": "secret",
            "aws_region": "here",
            "aws_allow_http": "true",
            "max_retries": "0",
        }


def test_a_store_that_is_away_is_named_and_hinders_only_what_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeloop.samples.table.time.sleep", lambda _: None)
    nowhere = Nowhere()
    tables = Tables("rater", lambda _: nowhere)
    for version in (None, 3):
        with pytest.raises(TableUnavailable, match=r"table samples of rater cannot be read .*: run again"):
            tables.read("samples", version=version)
    with pytest.raises(TableUnavailable, match="table samples of rater cannot be read"):
        tables.version("samples")
    with pytest.raises(TableUnavailable, match="did not commit"):
        tables.merge("samples", rows(1), Sample)
    assert compact(tables, anybody) == []
