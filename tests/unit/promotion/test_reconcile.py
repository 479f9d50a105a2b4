"""What the alias names is rolled out; what it names no more is stopped; what was refused leaves the alias."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.clients.registry import ModelVersion, RegistryUnavailable
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.promotion.parts import NoTwin
from edgeloop.promotion.reconcile import CircularPromotion, describe
from edgeloop.promotion.records import Outcome
from edgeloop.samples.delivery import TwinRules
from edgeloop.samples.service import Service
from tests.unit.promotion.world import World, release_of


def test_without_an_alias_nothing_happens() -> None:
    world = World()
    found = world.reconcile()
    assert (found.version, found.state, found.started) == (None, None, False)
    assert world.ledger() == []


def test_an_alias_becomes_a_rollout_in_one_pass() -> None:
    world = World()
    found = world.set("1")
    assert (found.version, found.release, found.state, found.started) == ("1", release_of("1"), "released", True)
    assert (found.who, found.former) == ("alias", None)
    assert world.builder.built == ["1"]
    assert list(world.signer.signed) == [release_of("1")]
    assert world.ledger() == [("promotion", "1", None, "alias", "version 1 is champion")]


def test_looking_again_changes_nothing() -> None:
    world = World()
    world.out("1")
    world.set("2")
    before = world.promotions.history("rater"), world.ledger()
    assert [world.reconcile().started for _ in range(3)] == [False] * 3
    assert (world.promotions.history("rater"), world.ledger()) == before
    assert world.builder.built == ["1", "2"]


def test_the_gate_is_named_and_a_hand_that_sets_it_again_is_not() -> None:
    world = World()
    world.fleet.record("rater", "gate", "k", verdict="pass", reason="r", version="1", dataset="d", who="gate")
    assert world.set("1").who == "gate"
    world.rollouts.end("done")
    world.set("2")
    world.rollouts.end("done")
    assert world.set("1").who == "alias"
    assert [row[3] for row in world.ledger() if row[0] == "promotion"] == ["gate", "alias", "alias"]


def test_a_registry_that_is_away_is_no_deleted_alias() -> None:
    world = World()
    world.out("1")
    world.set("2")
    world.registry.away = True
    with pytest.raises(RegistryUnavailable):
        world.reconcile()
    world.registry.away = False
    assert world.rollouts.stopped == []
    assert world.reconcile().state == "released"


def test_a_deleted_alias_stops_what_is_under_way() -> None:
    world = World()
    world.out("1")
    world.set("2")
    found = world.set(None)
    assert (found.version, found.state, found.former) == ("2", "withdrawn", "1")
    assert world.rollouts.stopped == [(release_of("2"), "alias")]
    assert world.rollouts.runs() == release_of("1")
    assert world.ledger()[-1] == ("withdraw", "1", "2", "alias", "the alias champion was deleted")


def test_a_deleted_alias_leaves_a_fleet_that_has_the_version() -> None:
    world = World()
    world.out("1")
    assert world.set(None).state == "withdrawn"
    assert world.rollouts.stopped == []
    assert world.rollouts.runs() == release_of("1")


def test_an_alias_that_is_set_again_after_it_was_deleted_begins_again() -> None:
    world = World()
    world.set("1")
    world.set(None)
    assert world.set("1").started
    assert len(world.promotions.history("rater")) == 2


def test_a_newer_version_takes_over_and_stops_nothing() -> None:
    world = World()
    world.out("1")
    world.set("2")
    assert world.set("3").started
    assert world.rollouts.stopped == [], "the newer rollout takes over at the end of a ring"
    states = [(p.version, p.state) for p in world.promotions.history("rater")]
    assert states == [("3", "released"), ("2", "superseded"), ("1", "superseded")]


def test_an_alias_moved_back_in_mid_rollout_stops_it_and_begins_none() -> None:
    world = World()
    world.out("1")
    world.set("2")
    found = world.set("1")
    assert world.rollouts.stopped == [(release_of("2"), "alias")]
    assert (found.version, found.state, found.started) == ("1", "released", False)
    assert world.rollouts.began == [release_of("1"), release_of("2")]


def test_an_alias_moved_to_an_older_version_rolls_it_out() -> None:
    world = World()
    world.out("1")
    world.out("2")
    assert world.set("1").started
    assert world.ledger()[-1][:4] == ("promotion", "1", "2", "alias")


def test_a_rollout_that_was_taken_back_takes_the_alias_with_it() -> None:
    world = World()
    world.out("1")
    world.set("2")
    world.rollouts.end("reverted", "ring 0: edge-1 gave it up")
    found = world.reconcile()
    assert world.champion() == "1"
    assert (found.version, found.state, found.started) == ("1", "released", False)
    refused = world.promotions.history("rater")[1]
    assert (refused.version, refused.state, refused.reason) == ("2", "reverted", "ring 0: edge-1 gave it up")
    assert world.registry.stamps["rater", "2"]["refused"] == "reverted by rollout: ring 0: edge-1 gave it up"


def test_the_first_version_leaves_no_alias_when_it_is_taken_back() -> None:
    world = World()
    world.set("1")
    world.rollouts.end("reverted")
    world.reconcile()
    assert world.champion() is None


def test_a_refused_version_begins_again_only_after_the_alias_was_elsewhere() -> None:
    world = World()
    world.out("1")
    world.set("2")
    world.rollouts.end("reverted")
    for _ in range(3):
        world.reconcile()
    assert world.rollouts.began.count(release_of("2")) == 1
    assert world.set("2").started, "somebody means it"
    assert world.rollouts.began.count(release_of("2")) == 2


def test_a_rollback_at_the_rollout_takes_the_alias_with_it() -> None:
    world = World()
    world.out("1")
    world.out("2")
    world.rollouts.begin(release_of("1"), "alice", "by hand")
    assert (world.reconcile().state, world.champion()) == ("released", "2"), "it may still end otherwise"
    world.rollouts.end("done")
    found = world.reconcile()
    assert (found.version, found.state, world.champion()) == ("1", "released", "1")


def test_a_rollback_is_not_stopped_by_an_alias_that_is_deleted_or_moved(tmp_path: Path) -> None:
    world = World()
    world.out("1")
    world.out("2")
    world.rollouts.begin(release_of("1"), "alice", "by hand")
    world.set(None)
    assert world.set("3").started
    assert world.rollouts.stopped == []


def test_a_rollout_of_something_else_that_was_taken_back_changes_nothing() -> None:
    world = World()
    world.out("1")
    for state in ("moving", "reverted"):
        if state == "moving":
            world.rollouts.begin("sha256:nobody-registered-it", "alice", "a try")
        else:
            world.rollouts.end(state)
        assert (world.reconcile().state, world.champion()) == ("released", "1")


def test_a_rollout_that_was_aborted_keeps_its_alias() -> None:
    world = World()
    world.out("1")
    world.set("2")
    world.rollouts.end("aborted", "alice: enough")
    assert (world.reconcile().state, world.champion()) == ("released", "2")


def test_a_release_that_waits_for_its_signature_does_not_roll() -> None:
    world = World()
    world.signer.awaits = "a signature of releases"
    found = world.set("1")
    assert (found.state, found.reason, found.started) == ("signing", "a signature of releases", False)
    assert world.rollouts.began == []
    world.signer.awaits = None
    assert world.reconcile().started


def test_a_release_that_was_withdrawn_is_not_signed_again_by_its_alias() -> None:
    world = World()
    world.out("1")
    world.fleet.record("rater", "withdraw", release_of("2"), verdict="fail", reason="it leaks", who="ann", version="2")
    world.set("2")
    assert set(world.signer.signed) == {release_of("1")}
    assert (world.champion(), world.rollouts.began) == ("1", [release_of("1")])
    assert world.ledger()[-1] == ("reject", "1", "2", "channel", "ann withdrew it: it leaks; promote another version")


def test_a_twin_that_is_not_asked_for_does_not_run() -> None:
    world = World(twin={"rehearse": False})
    world.set("1")
    assert world.rehearser.ran == {}
    assert world.signer.signed == {release_of("1"): {}}


def test_a_twin_that_passes_goes_before_the_rollout() -> None:
    world = World()
    assert world.set("1").started
    assert world.rehearser.ran == {release_of("1"): "pass"}
    assert world.signer.signed == {release_of("1"): {"twin": [f"report of {release_of('1')}"]}}


@pytest.mark.parametrize("required", [False, True])
def test_a_twin_that_fails_keeps_the_fleet_and_moves_the_alias_back(required: bool) -> None:
    world = World(twin={"required": required})
    world.out("1")
    world.rehearser.says = "fail"
    world.set("2")
    assert world.rollouts.began == [release_of("1")]
    assert world.champion() == "1"
    assert world.ledger()[-1] == ("reject", "1", "2", "twin", "the digital twin refused it: see its report")


def test_a_twin_that_is_not_sure_holds_up_only_who_asked_for_it() -> None:
    for required, state in ((False, "released"), (True, "waiting")):
        world = World(twin={"required": required})
        world.rehearser.says = "inconclusive"
        assert world.set("1").state == state
        assert list(world.rehearser.ran) == [release_of("1")]


def test_to_require_a_twin_and_not_to_rehearse_is_refused() -> None:
    with pytest.raises(ValueError, match=r"twin\.required needs a rehearsal"):
        TwinRules(rehearse=False, required=True)


def test_a_twin_that_cannot_run_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(twin={"required": True})

    def broken(service: Service, release: str) -> Outcome:
        raise EdgeloopError("no such control group: unset it")

    with monkeypatch.context() as patch:
        patch.setattr(world.rehearser, "rehearse", broken)
        with pytest.raises(EdgeloopError, match="no such control group"):
            world.set("1")
    now = world.promotions.current("rater")
    assert now is not None and (now.state, now.reason) == ("rehearsing", "no such control group: unset it")
    assert world.rollouts.began == []
    assert world.reconcile().started


def test_without_a_twin_a_service_that_requires_one_waits_for_a_person() -> None:
    world = World(twin={"required": True})
    world.parts = type(world.parts)(**{**vars(world.parts), "rehearser": NoTwin()})
    found = world.set("1")
    assert found.state == "waiting"
    assert "the digital twin was not sure: edgeloop release approve rater" in found.reason


def test_a_build_that_fails_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def broken(service: Service, version: ModelVersion) -> str:
        raise EdgeloopError("no such layer: register the version again")

    with monkeypatch.context() as patched:
        patched.setattr(world.builder, "build", broken)
        with pytest.raises(EdgeloopError, match="no such layer"):
            world.set("1")
        open_one = world.promotions.current("rater")
        assert open_one is not None
        assert (open_one.state, open_one.reason) == ("building", "no such layer: register the version again")
    assert world.reconcile().started


def test_a_pass_that_goes_in_a_circle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(twin={"required": True})
    monkeypatch.setattr(world.rehearser, "rehearse", lambda *_: "pass")
    with pytest.raises(CircularPromotion, match="rater takes no end"):
        world.set("1")


def test_a_home_from_before_promotions_were_kept(tmp_path: Path) -> None:
    world = World(tmp_path)
    for version in ("1", "2"):
        world.fleet.add_release("rater", version, release_of(version))
    world.rollouts.begin(release_of("1"), "gate", "old")
    world.rollouts.end("done")
    found = world.set("1")
    assert (found.state, found.started) == ("released", False), "the fleet runs it already"
    assert world.set("2").started


def test_a_rollout_that_cannot_begin_says_why_in_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def refuse(*_: object) -> bool:
        raise BadInput("no image of it was pushed: run  edgeloop release push")

    monkeypatch.setattr(world.rollouts, "start", refuse)
    for _ in range(3):
        with pytest.raises(BadInput):
            world.set("1")
    assert describe(world.parts, "rater").reason == "no image of it was pushed: run  edgeloop release push"
    monkeypatch.undo()
    assert world.reconcile().state == "released"
