"""The demo on real input, as a user runs it: it gets better, refuses the wrong labels, and every node follows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.objects import DirectoryStore, open_store
from edgeloop.samples.dataset import freeze, members_of
from edgeloop.samples.table import Tables
from tests.conftest import need
from tests.e2e.cli import edgeloop, result_of
from tests.servers.ceph import S3Server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
KEYS = {
    "round", "seen", "sent", "labelled", "quarantined", "candidate_accuracy", "champion_accuracy", "promoted",
    "reason", "version",
}  # fmt: skip


def check(result: dict[str, Any], service: str, nodes: int) -> None:
    """What holds for every run with a round of wrong labels."""
    assert result["service"] == service
    assert all(set(r) >= KEYS for r in result["rounds"])
    wrong = [r for r in result["rounds"] if r["wrong_labels"]]
    assert len(wrong) == 1
    assert not wrong[0]["promoted"]
    assert wrong[0]["candidate_accuracy"] < wrong[0]["champion_accuracy"]
    assert sum(r["promoted"] for r in result["rounds"]) >= 2
    assert result["accuracy"]["last"] > result["accuracy"]["first"]
    check_fleet(result, nodes)


def check_fleet(result: dict[str, Any], nodes: int) -> None:
    assert len(result["fleet"]) == nodes
    assert {n["ring"] for n in result["fleet"]} == {0, 1}
    assert len({n["serving"] for n in result["fleet"]}) == 1
    assert all(n["serving"] == n["wanted"] for n in result["fleet"])


def check_table(tables: Tables, service: str, result: dict[str, Any]) -> None:
    """Every sample that a node said it captured is in the table, once."""
    rows = [r for r in tables.read("samples", ["sample_id", "device"]) if r["device"] != "reference"]
    assert len(rows) == len({r["sample_id"] for r in rows})
    assert len(rows) == sum(r["sent"] for r in result["rounds"])


def test_digits_the_offline_default(tmp_path: Path) -> None:
    home = tmp_path / "home"
    result = result_of(edgeloop("demo", home=home))
    check(result, "digits", nodes=4)
    assert result["metric"] == "accuracy"
    assert "simulated" in result["simulated"].lower()
    tables = Tables("digits", DirectoryStore(home / "store").table)
    check_table(tables, "digits", result)
    check_splits(home, "digits")
    assert (home / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (home / "loop.png").read_bytes().startswith(b"\x89PNG")


def check_splits(home: Path, service: str) -> None:
    """Pool, gate and test are disjoint by group, and only people's labels judge."""
    store = DirectoryStore(home / "store")
    tables = Tables(service, store.table)
    members = members_of(tables, service, freeze(store, tables, service).tables)
    groups = {r["sample_id"]: r["group"] for r in tables.read("samples", ["sample_id", "group"])}
    by_split = {s: {groups[m.sample_id] for m in members if m.split == s} for s in ("pool", "gate", "test")}
    assert all(by_split.values())
    assert not by_split["pool"] & by_split["gate"]
    assert not by_split["pool"] & by_split["test"]
    assert not by_split["gate"] & by_split["test"]
    assert {m.source for m in members if m.split != "pool"} == {"human"}


def test_wine_red_to_white_twice_on_one_home(tmp_path: Path, shared: Path) -> None:
    home = tmp_path / "home"
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


def test_cats_and_dogs_from_a_hundred_photos(tmp_path: Path, shared: Path) -> None:
    extractor = shared / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    photos = shared / "datasets" / "cats-dogs"
    words = ("--service", "cats-dogs", "--rounds", "3", "--data", str(photos), "--backbone", str(extractor))
    result = result_of(edgeloop("demo", *words, home=tmp_path / "home"))
    check(result, "cats-dogs", nodes=4)
    assert result["rounds"][0]["labelled"] == 100
    assert result["accuracy"]["last"] >= 0.93


@pytest.mark.s3
def test_wine_with_the_store_on_a_real_s3_server(tmp_path: Path, shared: Path, s3_server: S3Server) -> None:
    url = s3_server.store_url("wine-loop")
    environ = {**s3_server.environ(), "EDGELOOP_STORE": url}
    words = ("demo", "--service", "wine-rater", "--rounds", "5", "--nodes", "2")
    data = ("--data", str(shared / "datasets" / "wine"))
    result = result_of(edgeloop(*words, *data, home=tmp_path / "home", environ=environ))
    check(result, "wine-rater", nodes=2)
    store = open_store(url, environ={**os.environ, **s3_server.environ()})
    check_table(Tables("wine-rater", store.table), "wine-rater", result)
    assert not (tmp_path / "home" / "store").exists(), "everything went to the bucket"


def test_the_tools_for_these_tests_are_there() -> None:
    import shutil

    mosquitto = shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()
    need(bool(mosquitto), "mosquitto is missing, amqtt stands in: apt-get install -y mosquitto")
