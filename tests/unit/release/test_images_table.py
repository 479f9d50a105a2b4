"""What was pushed is remembered once, the newest push of a kind counts, on SQLite and PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.release.images import Images, NotReleased, find_release
from edgeloop.samples.records import digest
from edgeloop.samples.releases import MalformedRelease, release_key
from edgeloop.store import FleetStore
from tests.unit.release.oci.make import Blobs, photo_release, row_release
from tests.unit.test_store import postgres

__all__ = ["postgres"]
RELEASE, OTHER = digest(b"release"), digest(b"other")
A, B = digest(b"a"), digest(b"b")


@pytest.fixture(params=["sqlite", "postgresql"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FleetStore]:
    url = f"sqlite:///{tmp_path / 'fleet.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    store = FleetStore(str(url))
    yield store
    store.close()


def test_the_newest_push_of_each_kind_counts(fleet: FleetStore) -> None:
    images = Images(fleet.database)
    assert images.of(RELEASE) == {}
    images.add("rater", RELEASE, "model", "r.example/model", A)
    images.add("rater", RELEASE, "predictor", "r.example/predictor", A)
    images.add("rater", RELEASE, "predictor", "r.example/predictor", B)
    images.add("rater", OTHER, "model", "r.example/model", B)
    wanted = {"model": f"r.example/model@{A}", "predictor": f"r.example/predictor@{B}"}
    assert images.of(RELEASE) == wanted
    images.add("rater", RELEASE, "predictor", "r.example/predictor", A)
    assert Images(fleet.database).of(RELEASE) == {**wanted, "predictor": f"r.example/predictor@{A}"}
    rows = images.pushed("rater")
    assert [(r["kind"], r["digest"]) for r in rows] == [("predictor", A), ("model", B), ("predictor", B), ("model", A)]
    assert all(r["at"].tzinfo for r in rows)
    assert len(images.pushed("rater", limit=2)) == 2
    assert images.pushed("other") == []


def test_the_newest_release_is_found_or_that_of_a_version(tmp_path: Path) -> None:
    store, fleet = MemoryStore(), FleetStore(f"sqlite:///{tmp_path / 'fleet.db'}")
    with pytest.raises(NotReleased, match="rater was never released: set the alias champion"):
        find_release(fleet, store, "rater", None)
    old, new = row_release(Blobs(), "1"), photo_release(Blobs(), "2")
    for release in (old, new):
        fleet.add_release("rater", release.version, release.digest)
        store.create(release_key("rater", release.digest), release.to_bytes())
    assert find_release(fleet, store, "rater", None) == new
    assert find_release(fleet, store, "rater", "1") == old
    assert find_release(fleet, store, "rater", None, {old.digest}.__contains__) == old, "the newest was refused"
    with pytest.raises(NotReleased, match="rater has no release that may run"):
        find_release(fleet, store, "rater", None, lambda _: False)
    with pytest.raises(NotReleased, match="version 3 of rater was never released"):
        find_release(fleet, store, "rater", "3")
    store.put(release_key("rater", old.digest), new.to_bytes())
    with pytest.raises(MalformedRelease, match=old.digest):
        find_release(fleet, store, "rater", "1")
    store.delete(release_key("rater", old.digest))
    with pytest.raises(NotReleased, match="is EDGELOOP_STORE the store it was released to"):
        find_release(fleet, store, "rater", "1")
    fleet.close()
