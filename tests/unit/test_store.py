"""Facts are written once, times keep their zone, and a database that is away or misspelt is named."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeloop.samples.records import now
from edgeloop.store import BadDatabaseUrl, DatabaseUnavailable, FleetStore, describe
from tests.conftest import need
from tests.servers.ports import free_port

POSTGRES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server of this module's own."""
    need((POSTGRES / "initdb").exists(), "no PostgreSQL: apt-get install postgresql-15")
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    # Not in pytest's own directory, into which another user cannot look.
    folder = Path(tempfile.mkdtemp(prefix="edgeloop-postgres-"))
    data, port = folder / "data", free_port()
    if user:
        shutil.chown(folder, "postgres", "postgres")
    run = [*user, str(POSTGRES / "initdb"), "-D", str(data), "-U", "edgeloop", "--auth=trust", "--no-sync"]
    subprocess.run(run, check=True, capture_output=True, cwd=folder)
    command = [*user, str(POSTGRES / "postgres"), "-D", str(data), "-k", "", "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, "-F"], stdout=log, stderr=log, cwd=folder)
    try:
        wait_for_postgres(port)
        yield f"postgresql+psycopg://edgeloop@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_postgres(port: int) -> None:
    import psycopg

    from tests.servers.ports import wait_until

    def answers() -> bool:
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=edgeloop dbname=postgres connect_timeout=2").close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until("PostgreSQL", answers)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    found = str(request.getfixturevalue("postgres"))
    import sqlalchemy as sa

    engine = sa.create_engine(found)
    with engine.begin() as connection:
        for table in ("ledger", "releases", "rollouts"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
    engine.dispose()
    return found


@pytest.fixture
def fleet(url: str) -> Iterator[FleetStore]:
    store = FleetStore(url)
    yield store
    store.close()


def gate(fleet: FleetStore, key: str, service: str = "rater") -> bool:
    return fleet.record(service, "gate", key, verdict="pass", reason="better", who="gate", version="3")


def test_a_fact_is_written_once(fleet: FleetStore) -> None:
    assert gate(fleet, "a")
    assert not fleet.record("rater", "gate", "a", verdict="fail", reason="again", who="someone")
    row = fleet.entry("rater", "gate", "a")
    assert row is not None
    assert (row["verdict"], row["reason"], row["version"], row["former"]) == ("pass", "better", "3", None)
    assert len(fleet.history("rater")) == 1


def test_facts_of_other_services_events_and_keys_are_others(fleet: FleetStore) -> None:
    assert gate(fleet, "a")
    assert gate(fleet, "b")
    assert gate(fleet, "a", "sorter")
    assert fleet.record("rater", "revert", "a", verdict="fail", reason="", who="x")
    assert fleet.entry("rater", "gate", "c") is None
    assert fleet.entry("sorter", "revert", "a") is None


def test_history_is_newest_first_and_bounded(fleet: FleetStore) -> None:
    for key in "abcd":
        gate(fleet, key)
    gate(fleet, "z", "sorter")
    assert [row["key"] for row in fleet.history("rater")] == ["d", "c", "b", "a"]
    assert [row["key"] for row in fleet.history("rater", 2)] == ["d", "c"]
    assert fleet.history("other") == []


def test_times_know_their_zone(fleet: FleetStore) -> None:
    before = now()
    gate(fleet, "a")
    row = fleet.entry("rater", "gate", "a")
    assert row is not None
    assert row["at"].utcoffset() == timedelta(0)
    assert before <= row["at"] <= now()
    assert describe([row])[0]["at"] == row["at"].astimezone(UTC).isoformat()


def test_a_release_is_known_both_ways(fleet: FleetStore) -> None:
    assert fleet.add_release("rater", "1", "sha256:1")
    assert not fleet.add_release("rater", "1", "sha256:1")
    assert fleet.add_release("rater", "1", "sha256:2")
    assert fleet.add_release("sorter", "7", "sha256:1")
    assert fleet.release_of("rater", "1") == "sha256:2"
    assert fleet.release_of("rater", "2") is None
    assert fleet.version_of("rater", "sha256:1") == "1"
    assert fleet.version_of("sorter", "sha256:1") == "7"
    assert fleet.version_of("sorter", "sha256:2") is None
    assert [version for version, _ in fleet.released("rater")][:1] == ["1"] and fleet.released("other") == []


def test_of_many_writers_of_a_fact_one_wins(fleet: FleetStore) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(lambda _: gate(fleet, "a"), range(24))) == 1
    assert len(fleet.history("rater")) == 1


def test_opening_at_the_same_time_makes_the_tables_once(tmp_path: Path) -> None:
    """A start of the stack opens an empty database from several processes at once."""
    for number in range(5):
        barrier = threading.Barrier(4)
        url = f"sqlite:///{tmp_path / f'{number}.db'}"

        def open_together(_: int, url: str = url, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            FleetStore(url).close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(open_together, range(4)))


def test_whoever_meets_others_at_making_the_tables_tries_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met = ["table releases already exists"] * 7 + ["database is locked"] * 7
    real = sa.MetaData.create_all

    def create_all(meta: sa.MetaData, bind: Any) -> None:
        if met:
            raise sa.exc.OperationalError("CREATE TABLE", {}, sqlite3.OperationalError(met.pop()))
        real(meta, bind)

    monkeypatch.setattr(sa.MetaData, "create_all", create_all)
    FleetStore(f"sqlite:///{tmp_path / 'a.db'}").close()
    assert met == []
    met[:] = ["table releases already exists", "no space left"]
    with pytest.raises(DatabaseUnavailable, match="no space left"):
        FleetStore(f"sqlite:///{tmp_path / 'b.db'}")
    assert len(met) == 1, "what does not pass is said at once"


def test_what_was_written_is_there_after_opening_again(url: str) -> None:
    for expected in (True, False):
        store = FleetStore(url)
        assert gate(store, "a") is expected
        store.close()


def test_a_busy_database_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    store = FleetStore(f"sqlite:///{path}")
    holder = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.5, lambda: holder.execute("COMMIT"))
    release.start()
    assert gate(store, "a")
    release.join()
    holder.close()
    store.close()


def test_a_database_that_fails_later_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    store = FleetStore(f"sqlite:///{path}")
    other = sqlite3.connect(path)
    other.execute("DROP TABLE ledger")
    other.close()
    with pytest.raises(DatabaseUnavailable):
        store.history("rater")


@pytest.mark.parametrize("url", ["", "not a url", "foo://x", "mysql://h/d", "postgresql+asyncpgx://h/d"])
def test_a_url_that_cannot_be_used_is_refused_by_name(url: str) -> None:
    with pytest.raises(BadDatabaseUrl, match="EDGELOOP_DATABASE"):
        FleetStore(url)


def test_a_database_that_is_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        FleetStore(f"sqlite:///{tmp_path / 'absent' / 'fleet.db'}")
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        FleetStore(f"postgresql+psycopg://edgeloop@127.0.0.1:{free_port()}/postgres?connect_timeout=2")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        FleetStore(f"sqlite:///{tmp_path / 'fleet.db'}")


def test_an_inconclusive_decision_is_not_harmless(fleet: FleetStore) -> None:
    for number, verdict in enumerate(("fail", "inconclusive", "harmful", "inconclusive")):
        fleet.record(
            "rater", "gate", f"round-{number}", verdict=verdict, reason="", who="gate", dataset=f"set-{number}"
        )
    harmless, newest = fleet.last_judged("rater", harmless=True), fleet.last_judged("rater")
    assert harmless is not None
    assert newest is not None
    assert (harmless["dataset"], newest["dataset"]) == ("set-0", "set-3")
