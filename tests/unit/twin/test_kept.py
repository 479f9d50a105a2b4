"""A rehearsal is found again by what it was judged by, and its report is what was written or nothing."""

from __future__ import annotations

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.samples.delivery import TwinRules
from edgeloop.samples.records import digest
from edgeloop.samples.releases import blob_key
from edgeloop.store.database import Database
from edgeloop.twin.kept import Rehearsals, keep, load_report
from edgeloop.twin.records import LostReport, parse_report, terms_of
from tests.unit.twin.house import profile, report

RELEASE = report().release
TERMS = terms_of(report().profile, report().rules)


@pytest.fixture
def kept() -> Rehearsals:
    return Rehearsals(Database("sqlite://"))


def test_a_report_is_read_as_it_was_written(kept: Rehearsals) -> None:
    store, written = MemoryStore(), report()
    row = keep(store, kept, written)
    assert load_report(store, row.report) == written
    assert parse_report(written.to_bytes(), row.report).to_bytes() == written.to_bytes()
    assert (row.outcome, row.breaks_at, row.version) == ("pass", 150.0, "1")


def test_keeping_twice_writes_one_row(kept: Rehearsals) -> None:
    store, written = MemoryStore(), report()
    row = keep(store, kept, written)
    assert not kept.add(row)
    assert keep(store, kept, written) == row
    assert kept.of_release(RELEASE) == [row]


def test_the_newest_counts(kept: Rehearsals) -> None:
    store = MemoryStore()
    keep(store, kept, report(outcome="fail"))
    second = keep(store, kept, report(outcome="pass", machine="there"))
    assert kept.newest(RELEASE, "bench", TERMS) == second
    assert kept.of_release(RELEASE) == [second]


def test_other_budgets_ask_for_another_rehearsal(kept: Rehearsals) -> None:
    keep(MemoryStore(), kept, report())
    assert kept.newest(RELEASE, "bench", TERMS) is not None
    assert kept.newest(RELEASE, "bench", terms_of(profile(latency_ms_p99=1), report().rules)) is None
    assert kept.newest(RELEASE, "bench", terms_of(profile(), TwinRules(min_agreement=1))) is None
    assert kept.newest("sha256:" + "b" * 64, "bench", TERMS) is None


def test_profiles_are_told_apart(kept: Rehearsals) -> None:
    store = MemoryStore()
    for name in ("pi", "jetson"):
        keep(store, kept, report(profile=profile(name)))
    assert [row.profile for row in kept.of_release(RELEASE)] == ["jetson", "pi"]


def test_a_report_that_is_gone_or_damaged_is_said(kept: Rehearsals) -> None:
    store = MemoryStore()
    row = keep(store, kept, report())
    store.put(blob_key(row.report), b"{}")
    with pytest.raises(LostReport, match=r"cannot be read .*rehearse with --again"):
        load_report(store, row.report)
    store.delete(blob_key(row.report))
    with pytest.raises(LostReport, match=r"is not in .*rehearse with --again"):
        load_report(store, row.report)
    with pytest.raises(LostReport, match="cannot be read"):
        parse_report(b"[]", digest(b"[]"))
