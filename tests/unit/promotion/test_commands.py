"""``edgeloop release``: who may say what, in one line, and what programs read of it."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from tests.unit.promotion.world import World, release_of

YAML = """version: 1
name: rater
kind: tabular-regressor
description: rates
features: [{name: a, min: 0, max: 10}, {name: b}]
target: {name: y, min: 0, max: 10}
delivery: {approvals: {second: true, by: [alice, bob]}}
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Version 1 is out and version 2 waits, on a home that commands are pointed at."""
    made = World(tmp_path)
    made.out("1")
    made.service = World(approvals={"second": True, "by": ["alice", "bob"]}).service
    made.set("2")
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "rater.yaml").write_text(YAML, encoding="utf-8")
    monkeypatch.setenv("EDGELOOP_ROOMS", str(tmp_path))
    monkeypatch.setattr(App, "promotion", made.parts)
    return made


class Run:
    """Runs a command on a home and keeps what it printed."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self.capsys = home, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(self.home), "release", *words])
        said = self.capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(tmp_path, capsys)


def test_status_shows_what_waits(world: World, run: Run) -> None:
    code, out, _ = run("status")
    assert code == 0
    line = out.splitlines()[1]
    assert line.split()[:6] == ["rater", "2", "waiting", "alias", "1", release_of("2")[7:19]]
    assert "alice or bob, a second person: edgeloop release approve rater --version 2" in line
    _, out, _ = run("status", "rater")
    assert [row.split()[1:3] for row in out.splitlines()[1:]] == [["2", "waiting"], ["1", "superseded"]]


def test_status_for_programs(world: World, run: Run) -> None:
    run("approve", "rater", "--by", "bob")
    _, out, _ = run("status", "--json")
    (one,) = json.loads(out)["promotions"]
    assert (one["version"], one["open"], one["state"]) == ("2", True, "waiting")
    assert [(a["who"], a["verdict"]) for a in one["approvals"]] == [("bob", "approve")]


def test_a_home_without_promotions(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_ROOMS", str(tmp_path))
    assert run("status") == (0, "no version was promoted yet\n", "")


def test_approving(world: World, run: Run) -> None:
    code, out, _ = run("approve", "rater", "--by", "alice", "--reason", "seen it")
    assert (code, out) == (0, "rater: version 2 is approved; the flow release goes on with it\n")
    assert world.ledger()[-1] == ("approve", "2", "1", "alice", "seen it")
    assert world.reconcile().started


def test_approving_another_version_than_waits(world: World, run: Run) -> None:
    code, _, err = run("approve", "rater", "--version", "1", "--by", "alice")
    assert code == 2 and "version 1 of rater does not wait, version 2 does" in err


def test_without_a_name_it_is_who_is_logged_in(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "bob")
    assert run("approve", "rater")[0] == 0
    assert world.ledger()[-1][3] == "bob"


def test_rejecting(world: World, run: Run) -> None:
    code, out, _ = run("reject", "rater", "--by", "alice", "--reason", "no")
    assert (code, out) == (0, "rater: version 2 is rejected; the alias champion goes back to version 1\n")
    assert world.champion() == "1"


def test_rejecting_while_mlflow_is_away(world: World, run: Run) -> None:
    world.registry.away = True
    code, out, _ = run("reject", "rater", "--reason", "no")
    assert code == 0
    assert out.endswith("the alias champion goes back to version 1 as soon as MLflow answers again\n")


def test_reverting(world: World, run: Run) -> None:
    _, out, _ = run("revert", "rater", "--to", "3", "--by", "alice", "--reason", "try it", "--json")
    found: dict[str, Any] = json.loads(out)
    assert found == {"service": "rater", "version": "2", "back_to": "3", "alias_moved": True}
    assert world.champion() == "3"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["approve", "nobody"], "nobody"),
        (["approve", "rater", "--by", "mallory"], "mallory may not approve rater: ask alice or bob"),
        (["approve", "rater", "--by", " "], "--by '' is no name"),
        (["approve", "rater", "--by", "x" * 65], "is no name: give 1 to 64 letters"),
        (["reject", "rater"], "--reason"),
        (["reject", "rater", "--reason", " "], "--reason is empty"),
        (["revert", "rater", "--reason", "x", "--to", "99"], "rater has no version 99"),
        (["revert", "rater", "--reason", "x", "--to", "2"], "no version of rater to go back to from 2"),
        (["hook", "--host", "192.0.2.1"], "192.0.2.1 port 5050 cannot be used"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(world: World, run: Run, words: list[str], said: str) -> None:
    before = world.ledger(), world.promotions.history("rater"), world.champion()
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1
    assert (world.ledger(), world.promotions.history("rater"), world.champion()) == before
