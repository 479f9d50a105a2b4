"""A promotion gets one word for all profiles, and what was found already is not looked for again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from edgeloop.clients.model_types import Answer
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import digest
from edgeloop.samples.releases import NoVariant, blob_key
from edgeloop.twin import rehearser as module
from edgeloop.twin.kept import keep
from edgeloop.twin.records import Outcome, TwinReport
from edgeloop.twin.rehearser import Twin
from edgeloop.twin.run import ProfileTooSmall, _Rehearsal, rehearse
from edgeloop.twin.traffic import Traffic
from tests.unit.twin.house import House, profile, report

if TYPE_CHECKING:
    from edgeloop.twin.asking import Sender

PROFILES = [profile("pi"), profile("jetson")]


class Stage:
    """A twin of two profiles, whose rehearsals end as ``ends`` says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.house = House(folder, samples=0)
        self.release = self.house.release()
        self.ends: dict[str, Outcome] = {}
        self.ran: list[str] = []
        self.twin = Twin(self.house.parts(), lambda _: PROFILES)
        monkeypatch.setattr(module, "rehearse", self._rehearse)

    def _rehearse(self, parts: object, service: object, release: object, on: Profile) -> TwinReport:
        self.ran.append(on.name)
        return self.keep(on, self.ends[on.name])

    def keep(self, on: Profile, outcome: Outcome) -> TwinReport:
        rules = self.house.service.delivery.twin
        made = report(release=self.release.digest, profile=on, rules=rules, outcome=outcome)
        keep(self.house.store, self.house.rehearsals, made)
        return made

    def outcome(self) -> Outcome | None:
        return self.twin.outcome(self.house.service, self.release.digest)

    def rehearse(self) -> Outcome:
        return self.twin.rehearse(self.house.service, self.release.digest)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_before_it_ran_nothing_is_known(stage: Stage) -> None:
    assert stage.outcome() is None
    stage.keep(PROFILES[0], "pass")
    assert stage.outcome() is None, "one profile of two"


@pytest.mark.parametrize(
    ("pi", "jetson", "word"),
    [
        ("pass", "pass", "pass"),
        ("pass", "inconclusive", "inconclusive"),
        ("inconclusive", "fail", "fail"),
        ("fail", "pass", "fail"),
    ],
)
def test_the_worst_word_counts(stage: Stage, pi: Outcome, jetson: Outcome, word: Outcome) -> None:
    stage.ends = {"pi": pi, "jetson": jetson}
    assert stage.rehearse() == word
    assert stage.outcome() == word


def test_after_one_failed_the_others_need_not_run(stage: Stage) -> None:
    stage.ends = {"pi": "fail"}
    assert stage.rehearse() == "fail" and stage.ran == ["pi"]
    assert stage.outcome() == "fail"


def test_a_rehearsal_that_was_not_sure_is_settled_by_a_later_one(stage: Stage) -> None:
    stage.ends = {"pi": "inconclusive", "jetson": "pass"}
    stage.rehearse()
    sure = stage.keep(PROFILES[0], "pass")
    assert stage.outcome() == "pass"
    listed = stage.twin.report(stage.house.service, stage.release.digest)
    assert listed is not None
    reports = json.loads(stage.house.store.get(blob_key(listed)))["reports"]
    assert list(reports) == ["jetson", "pi"] and reports["pi"] == digest(sure.to_bytes())


def test_one_report_is_named_itself(stage: Stage) -> None:
    assert stage.twin.report(stage.house.service, stage.release.digest) is None
    only = stage.keep(PROFILES[0], "pass")
    assert stage.twin.report(stage.house.service, stage.release.digest) == digest(only.to_bytes())


def test_what_was_rehearsed_is_not_rehearsed_again(stage: Stage) -> None:
    known = stage.keep(PROFILES[0], "pass")
    parts = stage.house.parts(command=("/does/not/exist",))
    assert rehearse(parts, stage.house.service, stage.release, PROFILES[0]) == known


class Slow:
    """A sender whose first answers are late."""

    def __init__(self, late: int) -> None:
        self.late, self.asked = late, 0

    def ask(self, payload: bytes) -> Answer:
        self.asked += 1
        if self.asked <= self.late:
            time.sleep(0.06)
        return Answer("1.0", None, None, None)


@pytest.mark.parametrize(("late", "asked"), [(0, 3), (3, 6), (6, 6)])
def test_late_answers_are_asked_for_once_more_and_the_better_figures_count(stage: Stage, late: int, asked: int) -> None:
    house = stage.house
    rehearsal = _Rehearsal(house.parts(), house.service, stage.release, profile(latency_ms_p99=50), lambda _: None)
    sender = Slow(late)
    rehearsal._replay(cast("Sender", sender), Traffic([b"a", b"b", b"c"], "captured"))
    assert (sender.asked, rehearsal.found["inputs"], rehearsal.found["errors"]) == (asked, 3, 0)
    assert (rehearsal.found["p99_ms"] > 50) == (late == 6)


def test_what_cannot_run_is_said_before_anything_does(stage: Stage) -> None:
    parts = stage.house.parts(command=("/does/not/exist",))
    with pytest.raises(ProfileTooSmall, match="profile tiny gives a node 50 MB"):
        rehearse(parts, stage.house.service, stage.release, profile("tiny", memory_mb=50))
    with pytest.raises(NoVariant, match="no variant for profile 'other'"):
        rehearse(parts, stage.house.service, stage.house.varied("bench"), profile("other"))


def test_a_runtime_that_is_not_in_a_node_is_for_a_person_to_judge(stage: Stage) -> None:
    parts = stage.house.parts(command=("/does/not/exist",))
    found = rehearse(parts, stage.house.service, stage.house.varied("coral", runtime="edgetpu"), profile("coral"))
    assert found.outcome == "inconclusive" and found.confinement is None
    assert "edgetpu does not run in a node on this machine" in found.reasons[0]
