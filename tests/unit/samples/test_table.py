"""The tables take a record once, whoever writes it and how often, and every version can be read again."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.objects import DirectoryStore
from edgeloop.samples.records import Label, Sample
from edgeloop.samples.segments import to_row
from edgeloop.samples.table import Tables, TableUnavailable
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
