"""``edgeloop fleet list | show``: what nodes said last."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.broker import MemoryHub
from edgeloop.fleet.rollouts.intake import hear
from edgeloop.fleet.rollouts.roster import STALE, Roster
from edgeloop.samples.records import now
from tests.unit.fleet.home import Home, heard
from tests.unit.fleet.rollouts.world import NEW, OLD


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Home(tmp_path, capsys, monkeypatch)
    yield made
    made.app.fleet.close()


def test_nodes_are_listed_with_what_they_run(home: Home) -> None:
    assert "no node was heard yet" in home.text("fleet", "list")
    heard(home, [("b", 1, OLD, NEW), ("a", 0, NEW, NEW), ("c", 1, None, NEW)])
    text = home.text("fleet", "list")
    lines = [re.split(" {2,}", line) for line in text.splitlines()]
    old, new = (release.removeprefix("sha256:")[:12] for release in (OLD, NEW))
    assert lines[1] == ["a", "0", "rater", f"version 3 ({new})", f"version 3 ({new})"]
    assert lines[2] == ["b", "1", "rater", old, f"version 3 ({new})", "behind"], "no version is known of the old one"
    assert lines[3] == ["c", "1", "rater", "none", f"version 3 ({new})", "behind"]
    assert "3 nodes, 3 online" in text
    code, found = home.run("fleet", "list", "--service", "rater")
    assert (code, [n["node"] for n in found["nodes"]]) == (0, ["a", "b", "c"])
    assert [(n["serving_version"], n["wanted_version"]) for n in found["nodes"]] == [
        ("3", "3"),
        (None, "3"),
        (None, "3"),
    ]
    code, found = home.run("fleet", "list", "--service", "other")
    assert code == 2
    assert "unknown service 'other'" in found["error"]


def test_a_node_is_shown_with_its_last_error(home: Home) -> None:
    heard(home, [("a", 0, OLD, NEW)], refused=NEW, last_error="it is too large")
    code, found = home.run("fleet", "show", "a")
    assert (code, found["services"][0]["last_error"], found["services"][0]["online"]) == (0, "it is too large", True)
    text = home.text("fleet", "show", "a")
    assert "refuses" in text
    assert f"wanted      version 3 ({NEW.removeprefix('sha256:')})" in text
    assert "it is too large" in text
    code, found = home.run("fleet", "show", "z")
    assert code == 2
    assert "node 'z' was never heard" in found["error"]


def test_a_node_that_was_silent_for_long_is_offline(home: Home) -> None:
    heard(home, [("a", 0, NEW, NEW)])
    hub = MemoryHub().connect("test")
    hear(Roster(home.app.fleet.database), hub, now() + 2 * STALE + timedelta(seconds=1))
    hub.close()
    assert home.run("fleet", "show", "a")[1]["services"][0]["online"] is False
