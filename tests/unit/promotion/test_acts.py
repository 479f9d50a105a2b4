"""People approve, reject and go back: who may, what the ledger keeps, and what happens to the nodes and the alias."""

from __future__ import annotations

import pytest

from edgeloop.clients.registry import UnknownVersion
from edgeloop.promotion.acts import (
    NoReason,
    NotAnApprover,
    NothingToGoBackTo,
    NothingWaits,
    SameApprover,
    approve,
    reject,
    revert,
)
from tests.unit.promotion.world import World, release_of


def waiting(**approvals: object) -> World:
    """Version 1 is out, version 2 waits for a second word."""
    world = World()
    world.out("1")
    world.service = World(approvals={"second": True} | approvals).service
    assert world.set("2").state == "waiting"
    return world


def test_a_second_word_is_waited_for_and_asked_for() -> None:
    world = waiting()
    found = world.reconcile()
    assert (found.state, found.reason) == ("waiting", "a second person: edgeloop release approve rater --version 2")
    assert world.rollouts.began == [release_of("1")]
    assert release_of("2") not in world.signer.signed, "nothing is signed before it is approved"


def test_the_second_word_lets_it_roll() -> None:
    world = waiting()
    assert approve(world.parts, world.service, "alice", "looks right").version == "2"
    assert world.reconcile().started
    assert world.signer.signed[release_of("2")] == {
        "approved": ["alice"],
        "twin": [f"report of {release_of('2')}"],
    }
    assert world.ledger()[-2:] == [
        ("approve", "2", "1", "alice", "looks right"),
        ("promotion", "2", "1", "alias", "version 2 is champion, approved by alice"),
    ]


def test_a_word_is_given_once() -> None:
    world = waiting()
    approve(world.parts, world.service, "alice", "yes")
    before = world.ledger()
    with pytest.raises(SameApprover, match="alice has already spoken for version 2 of rater"):
        approve(world.parts, world.service, "alice", "yes, yes")
    assert world.ledger() == before


def test_who_set_the_alias_is_no_second_person() -> None:
    world = waiting()
    with pytest.raises(SameApprover):
        approve(world.parts, world.service, "alias", "me again")


def test_only_who_is_named_may_approve() -> None:
    world = waiting(by=["alice", "bob"])
    assert world.reconcile().reason == "alice or bob, a second person: edgeloop release approve rater --version 2"
    with pytest.raises(NotAnApprover, match="mallory may not approve rater: ask alice or bob"):
        approve(world.parts, world.service, "mallory", "sure")
    assert world.promotions.words(world.promotions.history("rater")[0]) == ()
    approve(world.parts, world.service, "bob", "yes")
    assert world.reconcile().started


def test_a_word_of_somebody_who_was_struck_off_counts_no_more() -> None:
    world = waiting()
    approve(world.parts, world.service, "alice", "yes")
    world.service = World(approvals={"second": True, "by": ["bob"]}).service
    assert world.reconcile().state == "waiting"


def test_nothing_that_waits_nothing_to_approve() -> None:
    world = World()
    with pytest.raises(NothingWaits, match="no version of rater waits for approval"):
        approve(world.parts, world.service, "alice", "yes")
    world.set("1")
    with pytest.raises(NothingWaits, match="version 1 is released"):
        approve(world.parts, world.service, "alice", "yes")


def test_the_way_back_needs_no_second_word() -> None:
    world = waiting()
    approve(world.parts, world.service, "alice", "yes")
    world.reconcile()
    world.rollouts.end("done")
    assert world.set("1").started, "it was on the fleet, and nobody took it back"


def test_a_version_that_was_taken_back_needs_its_second_word_again() -> None:
    world = waiting()
    approve(world.parts, world.service, "alice", "yes")
    world.reconcile()
    world.rollouts.end("reverted")
    world.reconcile()
    assert world.set("2").state == "waiting"


def test_what_is_under_way_is_rejected() -> None:
    world = World()
    world.out("1")
    world.set("2")
    done = reject(world.parts, world.service, "alice", "wrong labels")
    assert (done.version, done.back_to, done.alias_moved) == ("2", "1", True)
    assert world.rollouts.stopped == [(release_of("2"), "alice")]
    assert world.champion() == "1"
    assert world.ledger()[-1] == ("reject", "1", "2", "alice", "wrong labels")
    assert world.registry.stamps["rater", "2"]["refused"] == "rejected by alice: wrong labels"
    found = world.reconcile()
    assert (found.version, found.state, found.started) == ("1", "released", False)


def test_what_waits_is_rejected() -> None:
    world = waiting()
    reject(world.parts, world.service, "alice", "no")
    world.reconcile()
    assert world.champion() == "1"
    assert world.rollouts.began == [release_of("1")]
    assert world.rollouts.stopped == []


def test_a_rejection_leaves_an_older_rollout_alone() -> None:
    """Version 3 waits while version 2 is on its way: 2 was not rejected, and is what the alias goes back to."""
    world = World()
    world.out("1")
    world.set("2")
    world.service = World(approvals={"second": True}).service
    world.set("3")
    reject(world.parts, world.service, "alice", "no")
    assert world.rollouts.stopped == []
    assert world.champion() == "2"
    assert world.reconcile().state == "released"
    assert world.rollouts.began == [release_of("1"), release_of("2")]


def test_a_rejection_while_the_registry_is_away_stops_the_nodes_and_the_alias_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.out("1")
    world.set("2")
    world.registry.away = True
    assert reject(world.parts, world.service, "alice", "wrong").alias_moved is False
    assert world.rollouts.stopped == [(release_of("2"), "alice")]
    world.registry.away = False
    assert world.champion() == "2"
    world.reconcile()
    assert world.champion() == "1"
    assert len(world.rollouts.stopped) == 1


def test_a_rejected_version_does_not_begin_again_by_itself() -> None:
    world = World()
    world.set("1")
    reject(world.parts, world.service, "alice", "no")
    assert [world.reconcile().started for _ in range(3)] == [False] * 3
    assert world.champion() is None
    assert world.set("1").started


def test_a_rejection_in_the_very_moment_of_the_start_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.out("1")
    begin = world.rollouts.start

    def rejected_meanwhile(*given: object) -> bool:
        monkeypatch.undo()
        reject(world.parts, world.service, "alice", "no")
        return begin(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(world.rollouts, "start", rejected_meanwhile)
    world.set("2")
    world.reconcile()
    assert world.rollouts.stopped == [(release_of("2"), "alias")]
    assert (world.champion(), world.rollouts.runs()) == ("1", release_of("1"))


def test_a_rejection_while_it_is_signed_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.out("1")
    sign = world.signer.approve

    def rejected_meanwhile(*given: object) -> str | None:
        monkeypatch.undo()
        reject(world.parts, world.service, "alice", "no")
        return sign(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(world.signer, "approve", rejected_meanwhile)
    found = world.set("2")
    assert (found.version, found.state) == ("1", "released")
    assert world.rollouts.began == [release_of("1")]
    assert sum(p.version == "2" for p in world.promotions.history("rater")) == 1


def test_what_is_out_is_reverted_and_not_rejected() -> None:
    world = World()
    with pytest.raises(NothingWaits, match="no promotion is open"):
        reject(world.parts, world.service, "alice", "no")
    world.out("1")
    with pytest.raises(NothingWaits, match="edgeloop release revert rater"):
        reject(world.parts, world.service, "alice", "no")


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_reason_is_needed(reason: str) -> None:
    world = World()
    world.out("1")
    world.set("2")
    before = world.ledger()
    for act in (reject, revert):
        with pytest.raises(NoReason, match="--reason is empty"):
            act(world.parts, world.service, "alice", reason)
    assert (world.ledger(), world.champion()) == (before, "2")


def test_going_back_rolls_the_version_before_out_again() -> None:
    world = World()
    world.out("1")
    world.out("2")
    done = revert(world.parts, world.service, "alice", "worse in the field")
    assert (done.version, done.back_to) == ("2", "1")
    assert world.champion() == "1"
    assert world.ledger()[-1] == ("revert", "1", "2", "alice", "worse in the field")
    assert world.reconcile().started
    assert world.ledger()[-1][:4] == ("promotion", "1", "2", "alice")


def test_going_back_in_mid_rollout_stops_it() -> None:
    world = World()
    world.out("1")
    world.set("2")
    revert(world.parts, world.service, "alice", "worse")
    assert world.rollouts.stopped == [(release_of("2"), "alice")]
    assert world.reconcile().started is False


def test_going_back_to_a_version_of_choice() -> None:
    world = World()
    for version in ("1", "2", "3"):
        world.out(version)
    revert(world.parts, world.service, "alice", "all the way", to="1")
    assert world.reconcile().started
    assert world.rollouts.began[-1] == release_of("1")


def test_there_may_be_nothing_to_go_back_to() -> None:
    world = World()
    with pytest.raises(NothingToGoBackTo, match="no version of rater is champion"):
        revert(world.parts, world.service, "alice", "back")
    world.out("1")
    for to in (None, "1"):
        with pytest.raises(NothingToGoBackTo, match="no version of rater to go back to from 1"):
            revert(world.parts, world.service, "alice", "back", to)
    with pytest.raises(UnknownVersion, match="rater has no version 99"):
        revert(world.parts, world.service, "alice", "back", "99")
    assert world.champion() == "1"
    assert [row[0] for row in world.ledger()] == ["promotion"]


def test_what_was_closed_is_not_changed_by_whoever_read_it_before() -> None:
    world = World()
    world.out("1")
    world.set("2")
    read = world.promotions.current("rater")
    assert read is not None
    assert world.promotions.close(read, "rejected", "no", "alice", "1", "reject")
    before = world.promotions.history("rater"), world.ledger()
    assert not world.promotions.close(read, "reverted", "late", "rollout", None, "revert")
    assert not world.promotions.note(read, state="signing")
    assert (world.promotions.history("rater"), world.ledger()) == before


@pytest.mark.parametrize("spelt", ["Alice", "ALICE", "alice ", "\uff41lice"])
def test_one_person_spelt_in_two_ways_is_one_person(spelt: str) -> None:
    world = World()
    world.out("1")
    world.out("2")
    world.service = World(approvals={"second": True}).service
    revert(world.parts, world.service, "alice", "try the third", to="3")
    assert world.reconcile().state == "waiting"
    with pytest.raises(SameApprover):
        approve(world.parts, world.service, spelt, "me again")
    approve(world.parts, world.service, "Bob", "yes")
    with pytest.raises(SameApprover):
        approve(world.parts, world.service, "bob", "yes, yes")


def test_names_of_approvers_are_told_apart_as_people_are() -> None:
    world = waiting(by=["Alice"])
    approve(world.parts, world.service, "alice", "yes")
    assert world.reconcile().started


def test_a_word_is_for_the_version_that_was_looked_at() -> None:
    world = waiting()
    assert world.set("3").state == "waiting"
    with pytest.raises(NothingWaits, match="version 2 of rater does not wait, version 3 does"):
        approve(world.parts, world.service, "alice", "seen it", version="2")
    assert world.reconcile().state == "waiting"
    assert approve(world.parts, world.service, "alice", "seen it", version="3").version == "3"


def test_a_version_that_was_called_back_by_the_alias_needs_its_second_word_again() -> None:
    world = waiting()
    approve(world.parts, world.service, "alice", "yes")
    world.reconcile()
    world.set("1")
    assert world.rollouts.stopped == [(release_of("2"), "alias")]
    assert world.set("2").state == "waiting"


def test_a_former_version_that_is_gone_from_the_registry_leaves_no_alias() -> None:
    world = waiting()
    del world.registry.versions[0]
    done = reject(world.parts, world.service, "alice", "no")
    assert (done.version, done.back_to, done.alias_moved) == ("2", None, True)
    assert (world.champion(), world.reconcile().state) == (None, "rejected")
