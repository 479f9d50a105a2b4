"""``edgeloop rollout`` and ``edgeloop rollback`` on an empty home: words are written, mistakes are one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.commands.rollout import status_text
from edgeloop.fleet.publisher import Publisher
from edgeloop.fleet.rollout import RolloutStatus, pause, revert
from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.samples.records import now
from edgeloop.settings import load_settings
from tests.unit.fleet.rollouts.world import NEW, NEXT


def run(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), "--json", *words])
    return int(str(ended.value.code or 0)), json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def all_may_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Publisher, "allowed", lambda *_: True)


def test_what_was_never_approved_is_not_begun_and_not_what_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Publisher, "allowed", lambda _self, _service, release: release == NEW)
    app = App(load_settings(tmp_path))
    app.fleet.add_release("digits", "3", NEW)
    app.fleet.add_release("digits", "4", NEXT)
    assert run(capsys, tmp_path, "rollout", "plan", "digits")[1]["release"] == NEW
    code, found = run(capsys, tmp_path, "rollout", "start", "digits", "4")
    assert code == 1 and "is not approved: set the alias champion" in found["error"]
    assert app.fleet.last_rollout("digits") is None
    app.fleet.close()


def test_a_rollout_is_planned_begun_paused_and_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = App(load_settings(tmp_path))
    app.fleet.add_release("digits", "3", NEW)
    code, found = run(capsys, tmp_path, "rollout", "plan", "digits")
    assert (code, found["release"], [r["stands"] for r in found["rings"]]) == (0, NEW, [None, None])
    assert (found["version"], found["former"], found["former_version"]) == ("3", None, None)
    said = ("--by", "ann", "--reason", "because")
    expected = [("start", "3", "moving", ""), ("pause", "", "moving", "pause"), ("resume", "", "moving", "")]
    for word, version, state, waits in [*expected, ("revert", "", "reverted", "")]:
        code, found = run(capsys, tmp_path, "rollout", word, "digits", *filter(None, [version]), *said)
        assert (code, found["state"], found["waits"], found["version"]) == (0, state, waits, "3")
    code, found = run(capsys, tmp_path, "rollout", "status", "digits", "--watch")
    assert (code, found["state"], found["reason"]) == (0, "reverted", "reverted by ann: because")
    history = [(r["event"], r["who"]) for r in reversed(app.fleet.history("digits"))]
    assert history == [("promotion", "ann"), ("pause", "ann"), ("resume", "ann"), ("revert", "ann")]
    app.fleet.close()


def test_every_change_is_told_until_it_ends_or_waits_for_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(load_settings(tmp_path))
    app.fleet.add_release("digits", "3", NEW)
    run(capsys, tmp_path, "rollout", "start", "digits", "3", "--reason", "because")
    store = StateStore(app.fleet.database)
    #: What others do while it sleeps: nothing, a tick, nothing, a pause; then a tick, a revert.
    soaks = {"waits": "soak", "reason": "it soaks"}
    acts: list[Any] = [None, soaks, None, lambda: pause(app.fleet, "digits", "ann")]
    acts += [{"waits": "", "paused_by": "", "reason": "on"}, lambda: revert(app.fleet, "digits", "ann", "enough")]

    def others(_seconds: float) -> None:
        act = acts.pop(0)
        if isinstance(act, dict):
            [saved] = store.open()
            assert store.save(saved, saved.view.model_copy(update=act), (), now())
        elif act is not None:
            act()

    monkeypatch.setattr("edgeloop.commands.rollout.time.sleep", others)

    def watched() -> tuple[list[str], str]:
        with pytest.raises(SystemExit) as ended:
            main(["--home", str(tmp_path), "rollout", "status", "digits", "--watch"])
        assert not ended.value.code
        out, err = capsys.readouterr()
        told = [line.partition(" is ")[2] for line in err.splitlines() if line.startswith("digits: ")]
        return told, out.splitlines()[0].partition(" is ")[2]

    assert watched() == (["moving: because", "moving: it soaks"], "moving: paused by ann")
    assert (watched(), len(acts)) == (([], "moving: paused by ann"), 2)
    others(0)
    assert watched() == (["moving: on"], "reverted: reverted by ann: enough")
    assert acts == []
    app.fleet.close()


def test_what_waits_is_told_with_what_it_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = App(load_settings(tmp_path))
    said = []
    for version, release in (("3", NEW), ("4", NEXT), ("4", NEXT)):
        app.fleet.add_release("digits", version, release)
        with pytest.raises(SystemExit):
            main(["--home", str(tmp_path), "rollout", "start", "digits", version])
        said.append(capsys.readouterr().err)
    assert said == ["", "", "nothing was begun: version 4 is under way or queued, or all rings run it\n"]
    with pytest.raises(SystemExit):
        main(["--home", str(tmp_path), "rollout", "status", "digits"])
    heads = [line for line in capsys.readouterr().out.splitlines() if line.startswith("digits")]
    told = [head.split(":")[1].split(" (")[0] for head in heads]
    assert told == [" rollout 1 of version 3", " rollout 2 of version 4"]
    assert "is queued: waits until rollout 1 has come to the end of its ring" in heads[1]
    app.fleet.close()


def test_until_when_it_waits_is_told() -> None:
    at = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)
    known = {"service": "digits", "release": NEW, "former": None, "state": "moving", "wave": 0, "reason": "it soaks"}
    status = RolloutStatus.model_validate(known | {"next_look": at})
    assert status_text(status).endswith("is moving: it soaks, not before 2026-11-21 22:00:00 UTC")
    told = status_text(status.model_copy(update={"dropped": "rollout 7 was dropped: for ann"}))
    assert told.splitlines()[1] == "rollout 7 was dropped: for ann"


def test_a_ring_that_no_tick_has_looked_at_does_not_read_as_empty_and_who_approved_is_told() -> None:
    ring = {"state": "waiting", "batch": 0, "nodes": 0, "online": 0, "switched": 0, "failed": 0}
    seen = ring | {"ring": 0, "state": "staged", "nodes": 3, "online": 2, "approved_by": ["ann", "bob"]}
    known = {"service": "digits", "release": NEW, "former": None, "state": "moving", "wave": 0, "reason": "it moves"}
    status = RolloutStatus.model_validate(known | {"rings": [seen, ring | {"ring": 1}]})
    lines = status_text(status).splitlines()
    assert lines[2].split() == ["0", "staged", "0", "0", "of", "2", "3", "0", "ann,", "bob"]
    assert lines[3].split() == ["1", "waiting", "0", "-", "-", "-"]
    assert "approved by" not in status_text(RolloutStatus.model_validate(known | {"rings": [ring | {"ring": 1}]}))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("rollout", "start", "digits", "9"), "no release was made of version '9'"),
        (("rollout", "plan", "digits"), "has no release"),
        (("rollout", "status", "digits"), "digits was never rolled out"),
        (("rollout", "plan", "nothing"), "unknown service 'nothing'"),
        (("rollout", "start", "nothing", "9"), "unknown service 'nothing'"),
        (("rollout", "approve", "digits", "--ring", "1"), "nothing of digits is under way"),
        (("rollout", "abort", "digits"), "nothing of digits is under way, it was never rolled out: promote a version"),
        (("rollout", "pause", "digitz"), "unknown service 'digitz'"),
        (("rollback", "digits"), "no good release before"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part: str
) -> None:
    code, found = run(capsys, tmp_path, *words)
    assert code == 2
    assert part in found["error"]
