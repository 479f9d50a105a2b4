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
from edgeloop.fleet.rollout import RolloutStatus
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
    said = ("--by", "ann", "--reason", "because")
    expected = [("start", "3", "moving", ""), ("pause", "", "moving", "pause"), ("resume", "", "moving", "")]
    for word, version, state, waits in [*expected, ("revert", "", "reverted", "")]:
        code, found = run(capsys, tmp_path, "rollout", word, "digits", *filter(None, [version]), *said)
        assert (code, found["state"], found["waits"]) == (0, state, waits)
    code, found = run(capsys, tmp_path, "rollout", "status", "digits", "--watch")
    assert (code, found["state"], found["reason"]) == (0, "reverted", "reverted by ann: because")
    history = [(r["event"], r["who"]) for r in reversed(app.fleet.history("digits"))]
    assert history == [("promotion", "ann"), ("pause", "ann"), ("resume", "ann"), ("revert", "ann")]
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
    assert [head.split(":")[1].split(" of ")[0] for head in heads] == [" rollout 1", " rollout 2"]
    assert "is queued: waits until rollout 1 has come to the end of its ring" in heads[1]
    app.fleet.close()


def test_until_when_it_waits_is_told() -> None:
    at = datetime(2026, 11, 21, 22, 0, tzinfo=UTC)
    known = {"service": "digits", "release": NEW, "former": None, "state": "moving", "wave": 0, "reason": "it soaks"}
    status = RolloutStatus.model_validate(known | {"next_look": at})
    assert status_text(status).endswith("is moving: it soaks, not before 2026-11-21 22:00:00 UTC")
    told = status_text(status.model_copy(update={"dropped": "rollout 7 was dropped: for ann"}))
    assert told.splitlines()[1] == "rollout 7 was dropped: for ann"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("rollout", "start", "digits", "9"), "no release was made of version '9'"),
        (("rollout", "plan", "digits"), "has no release"),
        (("rollout", "status", "digits"), "digits was never rolled out"),
        (("rollout", "plan", "nothing"), "unknown service 'nothing'"),
        (("rollout", "approve", "digits", "--ring", "1"), "nothing of digits is under way"),
        (("rollout", "abort", "digits"), "nothing of digits is under way"),
        (("rollback", "digits"), "no good release before"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], part: str
) -> None:
    code, found = run(capsys, tmp_path, *words)
    assert code == 2
    assert part in found["error"]
