"""What a record means for a node, and when a release that was given up is tried again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeloop.edge.releases.state import Refused, ServiceState
from edgeloop.edge.releases.wishes import Wish, Wishes, wishes_of
from edgeloop.samples.cohorts import EVERYONE, NOBODY, bound, place
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Next, Wanted, wish_at

OLD, NEW = digest(b"old"), digest(b"new")


def record(below: str | None, *, wish: str | None = "at 1", salt: str = "s", sequence: int = 7) -> Wanted:
    coming = Next(release=NEW, salt=salt, below=below) if below else None
    return Wanted(service="rater", ring=0, release=OLD, sequence=sequence, next=coming, wish=wish)


def test_without_a_next_release_all_nodes_run_the_same() -> None:
    assert wishes_of(record(None), "n1") == Wishes(Wish(OLD, "at 1"), None)


def test_in_a_record_from_before_wishes_each_sequence_is_one() -> None:
    assert wishes_of(record(None, wish=None), "n1").now == Wish(OLD, wish_at(7))


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, min_size=1, max_size=20), st.integers(0, 20))
def test_so_many_nodes_switch_as_the_bound_counts_and_the_others_make_ready(nodes: list[str], count: int) -> None:
    below = bound("s", nodes, count)
    read = {node: wishes_of(record(below), node) for node in nodes}
    switching = {node for node, wishes in read.items() if wishes.now == Wish(NEW, "s")}
    assert len(switching) == min(count, len(nodes))
    assert all(read[node].later is None for node in switching)
    assert all(read[n] == Wishes(Wish(OLD, "at 1"), Wish(NEW, "s")) for n in nodes if n not in switching)


@given(st.text(min_size=1, max_size=8), st.text(max_size=8))
def test_a_bound_is_no_part_of_the_batch_and_everyone_is_everyone(node: str, salt: str) -> None:
    at = place(salt, node)
    assert wishes_of(record(at, salt=salt), node).later == Wish(NEW, salt)
    assert wishes_of(record(NOBODY, salt=salt), node).later == Wish(NEW, salt)
    assert wishes_of(record(EVERYONE, salt=salt), node).now == Wish(NEW, salt)


def test_a_next_release_that_is_the_rings_own_is_nothing_new() -> None:
    same = record(NOBODY).model_copy(update={"next": Next(release=OLD, salt="s", below=NOBODY)})
    assert wishes_of(same, "n1") == Wishes(Wish(OLD, "at 1"), None)


def refused(release: str, wish: str | None, sequence: int = 7) -> Refused:
    return Refused(release=release, sequence=sequence, error="no", wish=wish)


def test_what_was_given_up_stays_so_until_another_wish_for_it() -> None:
    known = ServiceState(refused=refused(OLD, "at 1"), declined=refused(NEW, "s"))
    same = known.told(8, wishes_of(record(bound("s", ["a", "n1"], 1)), "n1"))
    assert (same.refused, same.declined) == (known.refused, known.declined)
    other = known.told(9, wishes_of(record(NOBODY, wish="at 9", salt="t"), "n1"))
    assert (other.refused, other.declined) == (None, None)
    assert (other.wanted, other.next, other.sequence) == (OLD, NEW, 9)
    assert other.wishes == {OLD: "at 9", NEW: "t"}


def test_what_was_declined_and_is_wanted_no_more_is_forgotten() -> None:
    known = ServiceState(refused=refused(NEW, "s"), declined=refused(NEW, "s"))
    told = known.told(8, wishes_of(record(None), "n1"))
    assert told.declined is None
    assert told.refused == known.refused  # the last word on what this node ran


def test_a_refusal_from_before_wishes_had_names_is_of_its_sequence() -> None:
    assert refused(OLD, None, 7).name == wishes_of(record(None, wish=None, sequence=7), "n1").now.name
    assert refused(OLD, None, 7).name != wishes_of(record(None, wish=None, sequence=8), "n1").now.name
