"""Rollouts on the page: where they stand, what they wait for, who agreed, and what to type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from edgeloop.fleet.rollout import approve, pause, revert
from edgeloop.fleet.rollouts.crowd import Crowd
from edgeloop.samples.records import Report, now
from edgeloop.store import FleetStore
from edgeloop.web import nodes as module
from edgeloop.web.nodes import SHOWN, nodes
from edgeloop.web.page import moment, size
from edgeloop.web.rollouts import ledger, rollouts
from edgeloop.web.troubles import troubles
from tests.unit.fleet.rollouts.test_moves import passed, put
from tests.unit.fleet.rollouts.world import NEW, NEXT, OLD, World
from tests.unit.samples.make import regressor
from tests.unit.web.browser import Browser
from tests.unit.web.fleet import DIGEST, OTHER, healthy, node
from tests.unit.web.rolling import SERVICES, fill
from tests.unit.web.test_page import HOSTILE, shown

STRATEGY = {"batches": [1], "soak_seconds": 0, "patience_seconds": 300, "rings": {1: {"approve": True}}}


@pytest.fixture
def world() -> Iterator[World]:
    """A ring 1 that asks first."""
    found = World(regressor(rings=[0, 1], rollout={"soak_seconds": 0}), {"a": 0, "b": 0, "c": 1})
    found.delivered(OLD)
    found.service = regressor(rings=[0, 1], rollout=STRATEGY)
    yield found
    found.close()


def the_one(world: World) -> dict[str, Any]:
    return rollouts(world.fleet, ["rater", "never"])[0]


def test_what_waits_for_a_word_says_so_and_then_who_gave_it(world: World) -> None:
    world.start(NEW)
    while world.status().waits != "approval":
        world.tick()
        world.follow()
    one = the_one(world)
    assert (one["state"], one["version"], one["former_version"]) == ("moving", "new", "old")
    assert one["waits"] == "a person who lets the ring switch"
    assert one["commands"][0] == "edgeloop rollout approve rater --ring 1"
    first, second = one["rings"]
    assert (first["state"], first["switched"], first["batch"]) == ("passed", 2, 2)
    assert (second["state"], second["asks"], second["nodes"]) == ("staged", True, 1)
    approve(world.fleet, "rater", 1, "bob")
    one = the_one(world)
    assert one["approvals"] == [{"who": "bob", "what": "ring 1"}] and not one["rings"][1]["asks"]
    pause(world.fleet, "rater", "eve", "lunch")
    one = the_one(world)
    assert (one["waits"], one["commands"][0]) == ("eve, who paused it", "edgeloop rollout resume rater")
    assert [(row["event"], row["who"]) for row in ledger(world.fleet, ["rater"])][:2] == [
        ("pause", "eve"),
        ("approve", "bob"),
    ]


def test_a_queued_one_stands_behind_the_one_before_it(world: World) -> None:
    world.start(NEW)
    world.tick()
    world.start(NEXT)
    found = rollouts(world.fleet, ["rater"])
    assert [(one["state"], one["version"]) for one in found] == [("moving", "new"), ("queued", "next")]
    assert found[1]["waits"] == "the rollout before it"


def test_one_that_was_dropped_before_its_turn_is_only_named(world: World) -> None:
    world.start(NEW)
    world.tick()
    world.start(NEXT)
    world.start(NEW)
    (one,) = rollouts(world.fleet, ["rater"])
    said = "rollout 3 was dropped: ann wants the release before it again"
    assert (one["state"], one["version"], one["dropped"]) == ("moving", "new", said)
    assert f"After it {said} To type" in shown(lambda: {**healthy(), "rollouts": [one]})
    revert(world.fleet, "rater", "ann", "customers")
    world.run()
    (one,) = rollouts(world.fleet, ["rater"])
    assert (one["state"], one["version"], one["dropped"]) == ("reverted", "new", said)


def test_rings_that_were_taken_back_say_so(world: World) -> None:
    world.start(NEW)
    assert world.run().waits == "approval"
    revert(world.fleet, "rater", "ann", "customers")
    one = the_one(world)
    assert [(ring["state"], ring["asks"]) for ring in one["rings"]] == [("reverting", False)] * 2
    world.channel.approved.remove(OLD)
    world.tick()
    one = the_one(world)
    assert one["waits"] == "every ring to be back"
    assert one["reason"].startswith("reverted by ann: customers; going back is refused: release sha256:")
    world.channel.approved.add(OLD)
    assert world.run().state == "reverted"
    one = the_one(world)
    assert [(ring["state"], ring["switched"]) for ring in one["rings"]] == [("reverted", 0)] * 2
    assert "ring 0 reverted 2 0 2 2 0" in shown(lambda: {**healthy(), "rollouts": [one]})


def test_a_move_that_waits_is_told(world: World) -> None:
    world.service = regressor(rings=[0, 1], rollout={"soak_seconds": 100})
    world.start(NEW)
    passed(world, 0)
    put(world, "a", 1)
    assert the_one(world)["moves"] == ["a stays in ring 0 until the rollout of rater has come to ring 1 or ended"]


@pytest.mark.parametrize("word", ["done", "reverted"])
def test_one_that_ended_waits_for_nothing(world: World, word: str) -> None:
    world.service = regressor(rings=[0, 1], rollout={"soak_seconds": 0})
    if word == "reverted":
        world.nodes["a"].cannot.add(NEW)
    world.start(NEW)
    assert world.run().state == word
    one = the_one(world)
    assert one["waits"] is None
    assert one["commands"] == (['edgeloop rollback rater --reason "…"'] if word == "done" else [])
    assert ("it cannot" in one["reason"]) == (word == "reverted")


# --- as a person reads it


@pytest.fixture
def found(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """One on hold, one that moves, one that was taken back."""
    fleet = FleetStore(f"sqlite:///{tmp_path / 'fleet.db'}")
    fill(fleet)
    yield {**healthy(), "rollouts": rollouts(fleet, SERVICES), "ledger": ledger(fleet, SERVICES)}
    fleet.close()


def test_the_page_tells_the_three_apart(found: dict[str, Any]) -> None:
    text = shown(lambda: found)
    assert "cats-dogs holding rollout 1 ring 1: 702 of 961 online nodes serve it" in text
    assert "Waits for a person, to go on or to take it back Approved by ann (the release), bob (the release)" in text
    assert "edgeloop rollout resume cats-dogs edgeloop rollout revert cats-dogs" in text
    assert "ring 1 switching 1 702 961 1000 0 ring 2 waiting none not yet not yet 8960 0" in text
    assert "digits moving rollout 2 ring 0 soaks" in text
    assert re.search(r"Waits for the soak time of the ring; next look \d\d \w{3} \d\d:\d\d:\d\d UTC", text)
    assert "wine-rater reverted rollout 3 ring 0: audited accuracy is 61.0 %" in text
    assert "generic-amd64 litert, float32 99.9 % of 1000 84.2 MiB 3.2 ms 6.3 ms" in text
    assert "raspberry-pi-4 litert, int8 99.9 % of 1000 84.2 MiB not here not here" in text
    assert "digits approve 8 bob looked at the report of the twin" in text
    assert "cats-dogs: the rollout holds for a person" in text


def test_what_others_write_is_text(found: dict[str, Any]) -> None:
    one = found["rollouts"][0]
    names = ("reason", "who", "why", "version", "release", "former", "waits", "state", "service", "next_look", "target")
    hostile = {**one, **dict.fromkeys(names, HOSTILE), "moves": [HOSTILE], "commands": [HOSTILE]}
    hostile["approvals"] = [{"who": HOSTILE, "what": HOSTILE}]
    rows = [dict.fromkeys(found["ledger"][0], HOSTILE)]
    page = {**found, "rollouts": [hostile], "ledger": rows, "left_out": {HOSTILE: 3}}
    answer = Browser(lambda: page).get("/")
    assert answer.status_code == 200
    assert "<script" not in answer.text and "8641969" not in answer.text


def test_sections_without_anything_are_not_shown() -> None:
    text = shown(healthy)
    assert "Rollouts" not in text and "Ledger" not in text
    assert "Rollouts Not known" in shown(lambda: {**healthy(), "unknown": ["rollouts"]})


def test_times_and_sizes_are_for_people() -> None:
    assert moment("2026-03-01T09:05:07+01:00") == "01 Mar 08:05:07 UTC"
    assert (moment("soon"), moment(None)) == ("soon", "not known")
    assert (size(4096), size(88_331_264)) == ("4 KiB", "84.2 MiB")


# --- many nodes

MANY = 10_000


def report(number: int) -> dict[str, Any]:
    """A row of the roster: every twentieth node is away, two tell of an error, one is behind."""
    at = now()
    trouble = number in {77, 9_999}
    said = Report(node=f"n{number:05}", ring=number % 3, service="digits", at=at)
    return {
        "node": said.node, "service": said.service, "ring": said.ring, "said_at": at, "heard_at": at,
        "online": number % 20 != 0, "wanted": DIGEST, "serving": OTHER if number == 5_555 else DIGEST, "staged": None,
        "refused": None, "last_error": "no space" if trouble else None, "counted": "{}", "payload": str(number),
    }  # fmt: skip


class Fleet:
    """An app of which only the database may be asked."""

    def __init__(self, path: Path) -> None:
        self.fleet = FleetStore(f"sqlite:///{path}")

    def broker(self) -> Any:
        pytest.fail("the broker was asked for ten thousand nodes")


def test_ten_thousand_nodes_are_counted_and_the_worst_are_named(tmp_path: Path) -> None:
    app: Any = Fleet(tmp_path / "fleet.db")
    Crowd(app.fleet.database).note([report(n) for n in range(MANY)], [], at=now(), complete=True)
    found = nodes(app)
    assert sum(one["nodes"] for one in found["crowd"]) == MANY and len(found["crowd"]) == 3
    assert sum(one["online"] for one in found["crowd"]) == MANY * 19 // 20
    assert sum(one["there"] for one in found["crowd"]) == MANY * 19 // 20 - 1
    assert sum(one["failing"] for one in found["crowd"]) == 2
    assert len(found["nodes"]) == SHOWN and found["left_out"] == {"digits": MANY - SHOWN}
    names = {one["node"] for one in found["nodes"]}
    assert {"n00077", "n09999"} <= names and sum(not one["online"] for one in found["nodes"]) == SHOWN - 2
    page = {**healthy(), **found}
    said = troubles(page)
    assert len(said) < 20 and any("492 more nodes are offline" in one for one in said)
    text = shown(lambda: page)
    assert "9800 more nodes of digits are only counted above" in text
    assert len(Browser(lambda: page).get("/").content) < 200_000
    app.fleet.close()


def test_what_is_behind_comes_before_what_is_well(tmp_path: Path) -> None:
    app: Any = Fleet(tmp_path / "fleet.db")
    rows = [report(n) for n in (*range(1, 20), 5_555)]
    Crowd(app.fleet.database).note(rows, [], at=now(), complete=True)
    [worst] = Crowd(app.fleet.database).worst("digits", 1, now())
    assert worst.node == "n05555"
    app.fleet.close()


def test_where_nothing_listened_of_late_the_broker_is_asked(tmp_path: Path) -> None:
    app: Any = Fleet(tmp_path / "fleet.db")
    Crowd(app.fleet.database).note([report(1)], [], at=now() - timedelta(minutes=5), complete=True)
    with pytest.raises(pytest.fail.Exception):
        nodes(app)
    app.fleet.close()


def test_what_the_broker_keeps_is_cut_the_same_way() -> None:
    rows = [node(f"n{n:03}", n % 2, "digits", online=n != 250) for n in range(SHOWN + 100)]
    rows[299]["last_error"] = "no space"
    found = module._cut(rows)
    assert [one["nodes"] for one in found["crowd"]] == [150, 150]
    assert [one["online"] for one in found["crowd"]] == [149, 150]
    assert found["left_out"] == {"digits": 100}
    assert {"n250", "n299"} <= {one["node"] for one in found["nodes"]}
    assert module._cut(rows[:5])["left_out"] == {}
