"""The demo on real input, as a user runs it: it gets better, refuses the wrong labels, and every node follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.clients.objects import DirectoryStore
from edgeloop.samples.table import Tables
from tests.conftest import need
from tests.e2e.cli import edgeloop, result_of
from tests.e2e.demo_checks import check, check_splits, check_table, send_all

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


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


def test_cats_and_dogs_from_a_hundred_photos(tmp_path: Path, shared: Path) -> None:
    extractor = shared / "models" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
    photos = shared / "datasets" / "cats-dogs"
    words = ("--service", "cats-dogs", "--rounds", "3", "--data", str(photos), "--backbone", str(extractor))
    send_all(tmp_path / "home", "cats-dogs")
    result = result_of(edgeloop("demo", *words, home=tmp_path / "home"))
    check(result, "cats-dogs", nodes=4)
    assert result["rounds"][0]["labelled"] == 100
    assert result["accuracy"]["last"] >= 0.93


def test_the_tools_for_these_tests_are_there() -> None:
    import shutil

    mosquitto = shutil.which("mosquitto") or Path("/usr/sbin/mosquitto").exists()
    need(bool(mosquitto), "mosquitto is missing, amqtt stands in: apt-get install -y mosquitto")
