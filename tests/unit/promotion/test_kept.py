"""One promotion of a service is open, whoever writes at the same time, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgeloop.promotion.kept import Promotions
from edgeloop.store import FleetStore
from tests.unit import test_store

postgres = test_store.postgres


@pytest.fixture(params=["sqlite", "postgres"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FleetStore]:
    url = f"sqlite:///{tmp_path / 'fleet.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    made = FleetStore(url)
    yield made
    made.close()


def test_of_many_that_begin_at_once_one_does(fleet: FleetStore) -> None:
    kept = Promotions(fleet.database)
    with ThreadPoolExecutor(8) as pool:
        began = list(pool.map(lambda n: kept.begin("rater", str(n), None, "alias"), range(8)))
    assert began.count(True) == 1
    assert len(kept.history("rater")) == 1
    assert kept.begin("other", "1", None, "alias"), "another service is another matter"


def test_of_many_that_close_at_once_one_does(fleet: FleetStore) -> None:
    kept = Promotions(fleet.database)
    kept.begin("sorter", "1", None, "alias")
    now = kept.current("sorter")
    assert now is not None
    with ThreadPoolExecutor(8) as pool:
        closed = list(pool.map(lambda n: kept.close(now, "rejected", str(n), f"p{n}", None, "reject"), range(8)))
    assert closed.count(True) == 1
    assert [row["event"] for row in fleet.history("sorter")] == ["reject"]
    assert kept.current("sorter") is None
    assert all(kept.begin("sorter", v, "1", "alias") == (v == "2") for v in ("2", "3")), "closed ones are in no way"


def test_of_many_words_of_one_person_one_counts(fleet: FleetStore) -> None:
    kept = Promotions(fleet.database)
    kept.begin("looker", "1", None, "alias")
    now = kept.current("looker")
    assert now is not None
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda n: kept.say(now, "alice", str(n)), range(8)))
    assert said.count(True) == 1
    assert [(w.who, w.verdict) for w in kept.words(now)] == [("alice", "approve")]
    assert len(fleet.history("looker")) == 1
    assert kept.words(now)[0].at.tzinfo is not None
