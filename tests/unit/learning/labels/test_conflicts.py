"""Labels that cannot all be right: what counts, what is not learned from, what is asked again, and when that ends."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.learning.labels.answers import all_labels
from edgeloop.learning.labels.conflicts import (
    CONTRADICTORY,
    Claim,
    disputed,
    disputed_twins,
    find_conflicts,
    wrong_among,
)
from edgeloop.learning.labels.queue import Asked
from edgeloop.learning.labels.waiting import Asker, NothingToAsk, build_queue, sort_samples, standing
from edgeloop.learning.pool import FOREIGN_PSEUDO, Lesson, NothingToLearn, draw_lesson
from edgeloop.samples.dataset import freeze
from edgeloop.samples.labelling import Shares
from edgeloop.samples.records import LABEL_STRENGTH, Label, LabelSource, Sample
from edgeloop.samples.splits import split_of
from tests.unit.learning.labels.world import World
from tests.unit.samples.make import classifier, label, looker, picture, regressor, sample

SOURCES: list[LabelSource] = ["pseudo", "device", "human"]
claims = st.lists(
    st.builds(
        Claim,
        sample_id=st.uuids().map(str),
        payload=st.sampled_from(["p", "q"]),
        label=st.sampled_from(["x", "y"]),
        source=st.sampled_from(SOURCES),
    ),
    max_size=8,
)


@given(claims)
def test_what_is_left_of_one_input_says_one_thing(given_claims: list[Claim]) -> None:
    wrong = wrong_among(given_claims)
    for payload in ("p", "q"):
        group = [c for c in given_claims if c.payload == payload]
        left = [c for c in group if c.sample_id not in wrong]
        assert len({c.label for c in left}) <= 1
        if len({c.label for c in group}) <= 1:
            assert left == group, "who agrees stays"
        strongest = max((LABEL_STRENGTH[c.source] for c in group), default=0)
        said = {c.label for c in group if LABEL_STRENGTH[c.source] == strongest}
        assert bool(left) == (len(said) == 1), "the strongest source is believed where it says one thing"
    assert disputed_twins(given_claims) <= wrong | {c.sample_id for c in given_claims}


def numbers(split: str, count: int, service: str) -> list[int]:
    return [n for n in range(10_000) if split_of(f"group-{n}", service) == split][:count]


def photos(count: int, *, same: int, split: str = "pool") -> list[Sample]:
    """Samples of which the first ``same`` show the same picture."""
    return [
        sample(n, "looker", picture(0 if i < same else n + 1), prediction="cat")
        for i, n in enumerate(numbers(split, count, "looker"))
    ]


def lesson(world: World) -> Lesson:
    dataset = freeze(world.store, world.tables, world.service.name)
    return draw_lesson(world.store, world.tables, world.service, dataset, None, None, 0)


def learned(world: World) -> set[str]:
    return {m.sample_id for m in lesson(world).members}


def test_equal_images_with_different_labels_are_left_out_and_counted() -> None:
    world, rows = World(looker()), photos(5, same=2)
    world.add(rows)
    world.label(*(label(s, text) for s, text in zip(rows, ["cat", "dog", "cat", "dog", "cat"], strict=True)))
    assert lesson(world).left_out == {CONTRADICTORY: 2}
    assert learned(world) == {s.sample_id for s in rows[2:]}
    world.label(label(rows[0], "dog", seconds=9, by="bob"))
    assert lesson(world).left_out == {}
    assert learned(world) == {s.sample_id for s in rows}


def test_of_equal_images_the_stronger_source_is_believed() -> None:
    world, rows = World(looker()), photos(4, same=3)
    world.add(rows)
    sources: list[LabelSource] = ["human", "device", "device", "human"]
    texts = ["cat", "dog", "cat", "dog"]
    world.label(*(label(s, x, source) for s, x, source in zip(rows, texts, sources, strict=True)))
    assert lesson(world).left_out == {CONTRADICTORY: 1}
    assert learned(world) == {rows[0].sample_id, rows[2].sample_id, rows[3].sample_id}


def test_equal_rows_may_have_different_answers() -> None:
    world = World(classifier())
    rows = [sample(n, "sorter", b"[1,2]") for n in numbers("pool", 4, "sorter")]
    world.add(rows)
    world.label(*(label(s, "xy"[i % 2]) for i, s in enumerate(rows)))
    assert learned(world) == {s.sample_id for s in rows}
    [twins] = find_conflicts(world.store, world.tables, world.service, labels_of(world)).twins
    assert set(twins.labels) == {s.sample_id for s in rows} and not twins.settled


def test_where_everything_contradicts_itself_nothing_is_learned_and_the_next_step_is_named() -> None:
    world, rows = World(looker()), photos(2, same=2)
    world.add(rows)
    world.label(label(rows[0], "cat"), label(rows[1], "dog"))
    with pytest.raises(NothingToLearn, match=r"\(2 have contradictory labels\): answer again what  edgeloop label"):
        lesson(world)


def test_what_some_model_said_is_no_lesson() -> None:
    world, rows = World(looker()), photos(3, same=0)
    world.add(rows)
    world.label(label(rows[0], "cat"), label(rows[1], "dog", "pseudo"), label(rows[2], "dog", "device"))
    assert lesson(world).left_out == {FOREIGN_PSEUDO: 1}
    assert learned(world) == {rows[0].sample_id, rows[2].sample_id}


def labels_of(world: World) -> list[Label]:
    return standing(world.tables, all_labels(world.store, world.tables, world.service))


def asked_again(world: World, by: str | None) -> set[str]:
    found = sort_samples(world.tables, world.service, labels_of(world), Asker(by, Shares(twice=0)))
    return set(found.disputed)


def test_where_two_people_differ_a_third_is_asked_and_then_nobody() -> None:
    world = World(classifier())
    rows = [sample(n, "sorter") for n in numbers("pool", 2, "sorter") + numbers("gate", 1, "sorter")]
    world.add(rows)
    for one in rows:
        world.label(label(one, "x", by="ann"), label(one, "y", by="bob", seconds=1))
    world.label(label(rows[1], "x", by="bob", seconds=2))
    assert asked_again(world, "ann") == asked_again(world, "bob") == asked_again(world, None) == set()
    assert asked_again(world, "cy") == {rows[0].sample_id, rows[2].sample_id}
    queue = build_queue(world.store, world.tables, world.service, "cy", 10, 0, Shares(twice=0))
    assert {(one.sample_id, one.asked) for one in queue} == {
        (rows[0].sample_id, Asked(purpose="learn", why="disputed")),
        (rows[2].sample_id, Asked(purpose="judge", why="disputed")),
    }
    world.label(*(label(one, "x", by="cy", seconds=3) for one in rows))
    assert asked_again(world, "dan") == set()
    with pytest.raises(NothingToAsk, match="3 are labelled"):
        build_queue(world.store, world.tables, world.service, "dan", 10, 0, Shares(twice=0))


def test_numbers_that_differ_are_no_dispute() -> None:
    world = World(regressor())
    one = sample(numbers("pool", 1, "rater")[0])
    world.add([one])
    world.label(label(one, "5", by="ann"), label(one, "6", by="bob"))
    assert asked_again(world, "cy") == set()


def test_equal_images_with_different_labels_are_asked_of_somebody_else_once_each() -> None:
    world, rows = World(looker()), photos(4, same=2)
    world.add(rows)
    world.label(*(label(s, x, by="ann") for s, x in zip(rows, ["cat", "dog", "cat", "dog"], strict=True)))
    queue = build_queue(world.store, world.tables, world.service, "bob", 10, 0, Shares(twice=0))
    assert {one.sample_id for one in queue} == {s.sample_id for s in rows[:2]}
    assert {one.asked.why for one in queue} == {"disputed"}
    world.label(label(rows[0], "cat", by="bob", seconds=1))
    queue = build_queue(world.store, world.tables, world.service, "bob", 10, 0, Shares(twice=0))
    assert {one.sample_id for one in queue} == {rows[1].sample_id}
    world.label(label(rows[1], "dog", by="bob", seconds=1))
    with pytest.raises(NothingToAsk, match="4 are labelled"):
        build_queue(world.store, world.tables, world.service, "cy", 10, 0, Shares(twice=0))


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        ([("ann", "x"), ("bob", "y")], True),
        ([("ann", "x"), ("bob", "x")], False),
        ([("ann", "x")], False),
        ([("ann", "x"), ("ann", "y")], False),
        ([("ann", "x"), ("bob", "y"), ("cy", "x")], False),
        ([("ann", "x"), ("bob", "y"), ("ann", "y")], False),
    ],
)
def test_a_dispute_is_between_the_last_words_of_two(answers: Sequence[tuple[str, str]], wanted: bool) -> None:
    given_labels = [label(sample(1), text, by=by, seconds=at) for at, (by, text) in enumerate(answers)]
    assert disputed(given_labels) is wanted
    assert not disputed([x.model_copy(update={"source": "device"}) for x in given_labels])


def test_all_contradictions_are_listed() -> None:
    world, rows = World(looker()), photos(6, same=2)
    world.add(rows)
    world.label(label(rows[0], "cat"), label(rows[1], "dog", "device"))
    world.label(label(rows[2], "cat", by="ann"), label(rows[2], "dog", by="bob", seconds=1))
    world.label(label(rows[3], "cat", "device", by="d1"), label(rows[3], "dog", "device", by="d2", seconds=1))
    world.label(label(rows[4], "cat", "device", by="d1"), label(rows[4], "dog", "device", by="d2"))
    world.label(label(rows[4], "dog", by="ann", seconds=1))
    found = find_conflicts(world.store, world.tables, world.service, labels_of(world))
    assert [(c.sample_id, c.answers, c.counts) for c in found.people] == [
        (rows[2].sample_id, {"ann": "cat", "bob": "dog"}, "dog")
    ]
    assert [c.sample_id for c in found.devices] == [rows[3].sample_id], "a person has settled the other"
    [twins] = found.twins
    assert (twins.labels, twins.settled) == ({rows[0].sample_id: "cat", rows[1].sample_id: "dog"}, True)
