"""The demo on wine, as a user runs it, on a directory and on S3."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeloop.clients.objects import DirectoryStore, open_store
from edgeloop.samples.table import Tables
from tests.e2e.cli import edgeloop, result_of
from tests.e2e.demo_checks import check, check_fleet, check_table, send_all
from tests.servers.ceph import S3Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_wine_red_to_white_twice_on_one_home(tmp_path: Path, shared: Path) -> None:
    home = tmp_path / "home"
    send_all(home, "wine-rater")
    wine = ("demo", "--service", "wine-rater", "--rounds", "5", "--nodes", "2")
    first = result_of(edgeloop(*wine, "--data", str(shared / "datasets" / "wine"), home=home))
    check(first, "wine-rater", nodes=2)
    assert first["metric"] == "r2"
    check_table(Tables("wine-rater", DirectoryStore(home / "store").table), "wine-rater", first)

    again = result_of(edgeloop(*wine, "--wrong-round", "0", home=home))
    assert again["rounds"][0]["round"] == 1, "a second run needs no bootstrap"
    assert again["accuracy"]["first"] == pytest.approx(first["accuracy"]["last"])
    check_fleet(again, nodes=2)
    if not again["rounds"][0]["promoted"]:
        assert again["rounds"][0]["version"] == first["rounds"][-1]["version"]


@pytest.mark.s3
def test_wine_with_the_store_on_a_real_s3_server(tmp_path: Path, shared: Path, s3_server: S3Server) -> None:
    url = s3_server.store_url("wine-loop")
    environ = {**s3_server.environ(), "EDGELOOP_STORE": url}
    words = ("demo", "--service", "wine-rater", "--rounds", "5", "--nodes", "2")
    data = ("--data", str(shared / "datasets" / "wine"))
    send_all(tmp_path / "home", "wine-rater")
    result = result_of(edgeloop(*words, *data, home=tmp_path / "home", environ=environ))
    check(result, "wine-rater", nodes=2)
    store = open_store(url, environ={**os.environ, **s3_server.environ()})
    check_table(Tables("wine-rater", store.table), "wine-rater", result)
    assert not (tmp_path / "home" / "store").exists(), "everything went to the bucket"
