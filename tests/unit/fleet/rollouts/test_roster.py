"""The roster keeps what each node said last, and what it counted under the release before."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeloop.fleet.rollouts.evidence import RingEvidence, Tally
from edgeloop.fleet.rollouts.roster import GONE, STALE, Roster, meta
from edgeloop.fleet.rollouts.verdict import confidence_check, errors_check
from edgeloop.samples.cohorts import EVERYONE, NOBODY, bound
from edgeloop.samples.strategy import Thresholds
from edgeloop.store.database import Database
from tests.unit.test_store import postgres

__all__ = ["postgres"]
AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OLD, NEW = "sha256:old", "sha256:new"
EMPTY = {"answered": 0, "failed": 0, "audited": 0, "agreed": 0, "histogram": [0] * 10, "p99": None}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("postgres"))
        engine = sa.create_engine(url)
        meta.drop_all(engine)
        engine.dispose()
    found = Database(url)
    yield found
    found.close()


@pytest.fixture
def roster(database: Database) -> Roster:
    return Roster(database)


def row(node: str = "n1", at: datetime = AT, counted: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"node": node, "service": "rater", "ring": 0, "said_at": at, "heard_at": at}
    values |= {"online": True, "wanted": None, "serving": OLD, "staged": None, "refused": None, "last_error": None}
    return values | {"counted": json.dumps(EMPTY | (counted or {})), "payload": f"{node}{at}"} | changes


def say(roster: Roster, *rows: dict[str, Any], at: datetime = AT, complete: bool = True) -> None:
    roster.note(rows, [], at=at, complete=complete)


def look(roster: Roster, at: datetime = AT, **changes: Any) -> RingEvidence:
    limits = changes.pop("limits", Thresholds())
    values: dict[str, Any] = {"service": "rater", "ring": 0, "release": NEW, "former": OLD}
    values |= {"salt": "s", "below": EVERYONE} | changes
    since = values.pop("since", None)
    return roster.evidence(**values, limits=limits, at=at, since=since)


def test_nobody_was_heard(roster: Roster) -> None:
    assert (roster.names("rater", 0), roster.rings("rater"), roster.rows(), roster.last_heard()) == ([], {}, [], None)
    assert look(roster) == RingEvidence()


def test_names_rings_and_rows(roster: Roster) -> None:
    say(roster, row("b"), row("a", serving=NEW), row("c", ring=2), row("a", service="another"))
    assert roster.names("rater", 0) == ["a", "b"]
    assert roster.rings("rater") == {0: 2, 2: 1}
    assert roster.serving("rater", OLD, AT) == ["b", "c"]
    assert [(r.service, r.ring, r.node, r.online) for r in roster.rows()] == [
        ("another", 0, "a", True),
        ("rater", 0, "a", True),
        ("rater", 0, "b", True),
        ("rater", 2, "c", True),
    ]
    assert roster.rows("another")[0].heard_at == AT
    assert [r.online for r in roster.rows("rater", AT + STALE)] == [False] * 3


def test_a_node_that_is_gone_is_of_no_ring_until_it_speaks(roster: Roster) -> None:
    say(roster, row("a"), row("b", AT + timedelta(days=1)))
    later = AT + GONE
    assert (look(roster, later).nodes, roster.rings("rater", later), roster.rings("rater")) == (1, {0: 1}, {0: 2})
    say(roster, row("a", later), at=later)
    assert (look(roster, later).nodes, roster.names("rater", 0, later)) == (2, ["a"])


def test_a_node_is_in_the_ring_that_it_named_last(roster: Roster) -> None:
    say(roster, row("a"))
    say(roster, row("a", ring=3))
    assert roster.rings("rater") == {3: 1}


def test_fleets_do_not_mix(database: Database, roster: Roster) -> None:
    say(roster, row("a"))
    other = Roster(database, "north")
    say(other, row("a", ring=1))
    assert (roster.rings("rater"), other.rings("rater")) == ({0: 1}, {1: 1})
    assert len(other.payloads()) == 1


def test_a_silent_node_goes_stale_and_stays(roster: Roster) -> None:
    say(roster, row("a", serving=NEW))
    just = AT + STALE - timedelta(seconds=1)
    assert (look(roster, just).online, look(roster, just).switched) == (1, 1)
    gone = look(roster, AT + STALE)
    assert (gone.nodes, gone.online, gone.touched_online, gone.switched, gone.lost) == (1, 0, 0, 0, 1)
    assert roster.serving("rater", NEW, AT + STALE) == []
    # Whoever asks in another zone asks for the same moment.
    assert roster.serving("rater", NEW, just.astimezone(_zone(-11))) == ["a"]
    assert roster.serving("rater", NEW, (AT + STALE).astimezone(_zone(-11))) == []


def _zone(hours: int) -> Any:
    from datetime import timezone

    return timezone(timedelta(hours=hours))


def test_the_word_on_a_node_speaks_for_all_its_reports(roster: Roster) -> None:
    word = {"node": "a", "online": False, "payload": "w"}
    roster.note([row("a"), row("a", service="another"), row("b")], [word], at=AT, complete=True)
    assert [(r.node, r.online) for r in roster.rows()] == [("a", False), ("a", False), ("b", True)]
    assert (look(roster).online, roster.serving("rater", OLD, AT)) == (1, ["b"])
    roster.note([], [word | {"online": True}], at=AT, complete=True)
    assert look(roster).online == 2


def test_only_nodes_below_the_bound_are_touched(roster: Roster) -> None:
    names = [f"n{number}" for number in range(20)]
    say(roster, *(row(name, serving=NEW if number % 2 else OLD) for number, name in enumerate(names)))
    for count in (0, 1, 7, 20):
        found = look(roster, below=bound("s", names, count))
        assert (found.touched, found.touched_online, found.nodes) == (count, count, 20)
    assert look(roster, below=NOBODY).switched == 0
    assert look(roster).switched == 10


def test_staged_nodes_hold_it_or_serve_it(roster: Roster) -> None:
    say(roster, row("a", staged=NEW), row("b", serving=NEW), row("c"), row("d", staged=NEW, online=False))
    assert look(roster).staged == 2


def test_a_refusal_is_a_failure_with_its_words(roster: Roster) -> None:
    say(roster, row("a", refused=NEW, last_error="wrong digest"), row("b", refused="sha256:other"), row("c"))
    found = look(roster)
    assert (found.failed, found.first_failure) == (1, "a: wrong digest")
    say(roster, row("a", serving=NEW, refused=NEW))
    assert look(roster).failed == 0
    assert look(roster, below=NOBODY).failed == 0


def test_a_node_that_failed_and_went_has_failed_still(roster: Roster) -> None:
    say(roster, row("a", refused=NEW, online=False), row("b", refused=NEW))
    assert (look(roster).failed, look(roster).failed_away) == (2, 1)


def test_a_node_that_goes_back_by_itself_has_failed(roster: Roster) -> None:
    say(roster, row("a", serving=NEW))
    say(roster, row("a", serving=OLD, last_error="crashed twice"), at=AT + timedelta(seconds=5))
    assert look(roster).first_failure == "a: fell back from it (crashed twice)"


def test_what_was_before_the_rollout_is_no_failure_of_it(roster: Roster) -> None:
    earlier, later = AT - timedelta(hours=1), AT + timedelta(seconds=30)
    say(roster, row("a", earlier, refused=NEW), row("b", earlier, serving=NEW), at=earlier)
    say(roster, row("a", refused=NEW), row("b"), at=AT - timedelta(minutes=1))
    assert look(roster).failed == 2
    assert look(roster, since=AT).failed == 0
    # It tries again: what it says first may still be of the first time, what it says two minutes later is not.
    say(roster, row("a", later, refused=NEW), at=later)
    assert look(roster, since=AT).failed == 0
    say(roster, row("a", AT + timedelta(seconds=121), refused=NEW), at=AT + timedelta(seconds=121))
    assert look(roster, since=AT).failed == 1
    say(roster, row("a", serving=NEW), at=later)
    say(roster, row("a", refused=NEW), at=later)
    assert look(roster, since=AT).failed == 1


def test_a_refusal_that_is_heard_late_is_as_old_as_it_was_said(roster: Roster) -> None:
    say(
        roster,
        row("a", AT - timedelta(seconds=5), refused=NEW),
        row("b", AT + timedelta(days=1), heard_at=AT, refused=NEW),
    )
    assert look(roster, since=AT).first_failure.startswith("b:")
    assert look(roster, since=AT).failed == 1
    assert look(roster, since=AT + timedelta(seconds=1)).failed == 0


def test_the_former_releases_counts_are_kept_beside(roster: Roster) -> None:
    before = {"answered": 135, "failed": 15, "audited": 20, "agreed": 19, "histogram": [1] * 10, "p99": 4.0}
    say(roster, row("a", counted=before), row("b", counted=before))
    now = {"answered": 120, "audited": 4, "histogram": [9] + [0] * 9, "p99": 9.0}
    say(roster, row("a", serving=NEW, counted=now))
    found = look(roster, limits=Thresholds(max_latency_ratio=2))
    assert found.release == Tally(120, 0, 4, 0, (9,) + (0,) * 9)
    # Of b, which does not serve it yet, nothing is compared.
    assert found.former == Tally(135, 15, 20, 19, (1,) * 10)
    assert (found.timed, found.slow) == (1, 1)
    assert look(roster, limits=Thresholds(max_latency_ratio=3)).slow == 0
    assert look(roster, limits=Thresholds(min_answers=121)).timed == 0
    assert look(roster, former="sha256:older").former == Tally()
    assert look(roster, former=None).former == Tally()


def test_a_restart_under_the_release_keeps_the_baseline(roster: Roster) -> None:
    say(roster, row("a", counted={"answered": 90}))
    say(roster, row("a", serving=None))
    say(roster, row("a", serving=NEW, counted={"answered": 5}))
    say(roster, row("a", serving=None, counted={"answered": 1}))
    waiting = look(roster)
    assert (waiting.switched, waiting.lost, waiting.failed) == (0, 0, 0)
    assert (waiting.release.answered, waiting.former.answered) == (6, 90)
    say(roster, row("a", serving=NEW, counted={"answered": 7}))
    assert (look(roster).release.answered, look(roster).former.answered) == (12, 90)


def test_a_release_that_crashes_and_fails_hides_nothing_by_it(roster: Roster) -> None:
    """Each life of its process answers a little and fails a little, and is counted from nothing."""
    say(roster, row("a", counted={"answered": 500}))
    for seconds in range(0, 40, 2):
        part = {"answered": 4, "failed": 5, "audited": 2, "histogram": [1] * 4 + [0] * 6}
        say(roster, row("a", serving=NEW, counted=part), at=AT + timedelta(seconds=seconds))
        say(roster, row("a", serving=None), at=AT + timedelta(seconds=seconds + 1))
    found = look(roster).release
    assert (found.answered, found.failed, found.audited, sum(found.histogram)) == (80, 100, 40, 80)
    assert errors_check(look(roster), Thresholds(), 0.05).outcome == "fail"


def test_the_p99_of_a_new_process_is_believed_when_it_knows_enough(roster: Roster) -> None:
    limits = Thresholds(max_latency_ratio=2)
    say(roster, row("a", counted={"answered": 1000, "p99": 4.0}))
    say(roster, row("a", serving=NEW, counted={"answered": 900, "p99": 5.0}))
    say(roster, row("a", serving=NEW, counted={"answered": 3, "p99": 900.0}))
    assert (look(roster, limits=limits).timed, look(roster, limits=limits).slow) == (1, 0)
    say(roster, row("a", serving=NEW, counted={"answered": 400, "p99": 50.0}))
    assert (look(roster, limits=limits).slow, look(roster).release.answered) == (1, 200)


def test_the_slowest_of_a_few_answers_is_no_p99(roster: Roster) -> None:
    say(roster, row("a", counted={"answered": 1000, "p99": 4.0}))
    say(roster, row("a", serving=NEW, counted={"answered": 100, "p99": 40.0}))
    assert look(roster, limits=Thresholds(max_latency_ratio=2)).timed == 0


def test_a_node_that_had_it_before_and_is_gone_is_not_lost_with_it(roster: Roster) -> None:
    say(roster, row("a", serving=NEW, online=False), row("b", serving=NEW))
    assert look(roster, since=AT + timedelta(seconds=1)).lost == 0
    assert look(roster, since=AT).lost == 1


def test_which_nodes_are_busy_is_no_fault_of_the_release(roster: Roster) -> None:
    """Every node is as it was; those whose devices send nonsense, of which the model is unsure, are busy now."""
    calm = {"answered": 1000, "failed": 0, "histogram": [0] * 9 + [1000]}
    poor = {"answered": 800, "failed": 200, "histogram": [1000] + [0] * 9}
    names = [(f"n{number}", poor if number < 50 else calm) for number in range(100)]
    say(roster, *(row(name, counted=kind) for name, kind in names))
    now = {True: (80, 20, [100] + [0] * 9), False: (10, 0, [0] * 9 + [10])}
    found = [
        (name, dict(zip(("answered", "failed", "histogram"), now[kind is poor], strict=True))) for name, kind in names
    ]
    say(roster, *(row(name, serving=NEW, counted=part) for name, part in found))
    seen, limits = look(roster), Thresholds(max_confidence_shift=0.2)
    assert errors_check(seen, limits, 0.05).outcome == "pass"
    assert confidence_check(seen, limits, 0.2).outcome == "pass"


def test_one_failure_in_very_many_is_not_one_in_two_hundred(roster: Roster) -> None:
    rare = {"answered": 999_999, "failed": 1}
    say(roster, *(row(f"n{number}", serving=NEW, counted=rare) for number in range(100)))
    assert look(roster, former=None).release == Tally(answered=20_000)
    assert errors_check(look(roster, former=None), Thresholds(), 0.001).outcome == "pass"


def test_the_first_release_of_a_node_is_no_fall_back(roster: Roster) -> None:
    say(roster, row("a", serving=None))
    say(roster, row("a", serving=NEW))
    assert (look(roster, former=None).switched, look(roster, former=None).failed) == (1, 0)


def test_one_busy_node_counts_as_two_hundred_answers(roster: Roster) -> None:
    busy = {"answered": 999_000, "failed": 1000, "audited": 4000, "agreed": 1000, "histogram": [0] * 9 + [5000]}
    say(roster, row("a", serving=NEW, counted=busy), row("b", serving=NEW, counted={"answered": 3, "failed": 1}))
    found = look(roster).release
    assert (found.answered, found.failed) == (203, 1)
    assert (found.audited, found.agreed) == (200, 50)
    assert found.histogram == (0,) * 9 + (200,)


def test_a_part_is_told_as_one(roster: Roster) -> None:
    say(roster, row("a"), complete=False)
    assert look(roster).complete is False
    say(roster, complete=True, at=AT + timedelta(seconds=1))
    assert look(roster).complete is True


def test_ten_thousand_nodes_are_summed_up_quickly(tmp_path: Path) -> None:
    roster = Roster(Database(f"sqlite:///{tmp_path / 'fleet.db'}"))
    counted = {"answered": 300, "failed": 1, "audited": 9, "agreed": 8, "histogram": [3] * 10, "p99": 4.0}
    say(roster, *(row(f"n{number}", counted=counted) for number in range(10_000)))
    say(roster, *(row(f"n{number}", serving=NEW, counted=counted) for number in range(10_000)))
    begin = time.process_time()
    found = look(roster)
    seconds = time.process_time() - begin
    assert (found.nodes, found.switched, found.former.audited) == (10_000, 10_000, 90_000)
    assert seconds < 1  # 0.15 s where nothing else runs
