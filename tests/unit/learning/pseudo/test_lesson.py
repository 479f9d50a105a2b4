"""Pseudo-labels in a lesson: of the open pool only, few, light, confirmed, and the same whenever they are made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeloop.clients.models import Backbone, LinearHead
from edgeloop.learning.evaluate import predict_split
from edgeloop.learning.features import KnownSpace
from edgeloop.learning.pool import Lesson, draw_lesson
from edgeloop.learning.pseudo import lesson as module
from edgeloop.learning.pseudo.lesson import PseudoLeak, with_pseudo_labels
from edgeloop.learning.rounds import Plan
from edgeloop.learning.tabular import Weightless
from edgeloop.learning.train import put_blob
from edgeloop.learning.trainers.image import FrozenTrainer, FullTrainer
from edgeloop.learning.trainers.workshop import _weights
from edgeloop.samples.dataset import Member, freeze
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.splits import split_of
from tests.unit.learning.labels.world import World
from tests.unit.learning.pseudo.world import Sorting, numbers
from tests.unit.samples.make import label, looker, sample

LABELLED, OPEN = numbers("pool", 20), numbers("pool", 60, start=1000)
JUDGES = [*numbers("gate", 20, start=3000), *numbers("test", 20, start=3000)]


def started(folder: Path, **pseudo: Any) -> Sorting:
    """A world with a champion, open samples on every side of the split, and something new to learn."""
    world = Sorting(folder, **pseudo)
    world.collect([*LABELLED, *numbers("gate", 10)])
    world.crown(world.train(world.plan()))
    world.add(world.rows([*OPEN, *JUDGES]))
    world.collect(numbers("pool", 10, start=500))
    return world


def lesson_of(world: Sorting, plan: Plan, seed: int = 0) -> Lesson:
    assert plan.base is not None
    plain = draw_lesson(world.store, world.tables, world.service, plan.dataset, plan.base.dataset, None, 0)
    champion = plan.base.layers
    return with_pseudo_labels(world.store, world.tables, world.service, plan.dataset.id, champion, None, plain, seed)


def pseudo(lesson: Lesson) -> list[Member]:
    return [m for m in lesson.members if m.source == "pseudo"]


def ids(members: Sequence[Member] | Sequence[Sample]) -> set[str]:
    return {m.sample_id for m in members}


def test_off_by_default(tmp_path: Path) -> None:
    world = started(tmp_path, enabled=False)
    plan = world.plan()
    assert plan.base is not None and not plan.base.pseudo
    assert world.train(plan).trained_on == {"new": 10, "replay": 20}


def test_a_round_learns_from_some_of_them_and_says_how_many(tmp_path: Path) -> None:
    world = started(tmp_path)
    plan = world.plan()
    assert plan.base is not None and plan.base.pseudo
    candidate = world.train(plan)
    assert candidate.trained_on == {"new": 10, "replay": 20, "pseudo": 12}
    world.service = started_without(world)
    plain = world.plan()
    assert plain.key != plan.key, "what was learned from is in the candidate's name"
    assert world.train(plain).layers["model"] != candidate.layers["model"]


def started_without(world: Sorting) -> Any:
    rules = world.service.labelling.model_copy(
        update={"pseudo": world.service.labelling.pseudo.model_copy(update={"enabled": False})}
    )
    return world.service.model_copy(update={"labelling": rules})


def test_they_are_of_open_pool_samples_only_and_judge_nothing(tmp_path: Path) -> None:
    world = started(tmp_path, share=0.9)
    plan = world.plan()
    before = plan.dataset.id
    made = pseudo(lesson_of(world, plan))
    assert made
    assert ids(made) <= ids(world.rows(OPEN))
    assert {m.split for m in made} == {"pool"}
    assert freeze(world.store, world.tables, "sorter").id == before, "they are in no dataset version"
    assert world.tables.read("labels", ["source"]) == [{"source": "human"}] * 40
    candidate = world.train(plan)
    for split in ("gate", "test"):
        judges = predict_split(world.store, world.tables, world.service, plan.dataset, candidate, split)
        assert {m.source for m in judges.members} <= {"human"}
        assert not ids(judges.members) & ids(made)


def test_anchors_are_all_there_and_weigh_more(tmp_path: Path) -> None:
    world = started(tmp_path, weight=0.25)
    found = lesson_of(world, world.plan())
    assert found.weights is not None
    by_source = {m.source: w for m, w in zip(found.members, found.weights, strict=True)}
    assert by_source == {"human": 1.0, "pseudo": 0.25}
    assert sum(m.source == "human" for m in found.members) == 30


def test_labels_agree_with_the_champion_and_with_the_neighbours(tmp_path: Path) -> None:
    world = started(tmp_path, share=0.9)
    odd = [sample(n, "sorter", encode_features([10.0, 0.0])) for n in numbers("pool", 10, start=5000)]
    world.add(odd)
    made = pseudo(lesson_of(world, world.plan()))
    right = {s.sample_id: world.right(n) for n, s in zip(OPEN, world.rows(OPEN), strict=True)}
    assert {m.sample_id: m.label for m in made} == {m.sample_id: right[m.sample_id] for m in made}
    assert len(made) > 30
    assert not ids(made) & ids(odd), "between the classes nobody is sure"


def test_a_champion_that_the_neighbours_contradict_labels_nothing(tmp_path: Path) -> None:
    world = started(tmp_path)
    good = world.plan()
    world.collect(numbers("pool", 200, start=7000), wrong=True)
    plan = world.plan()
    assert plan.base is not None and good.base is not None
    plain = draw_lesson(world.store, world.tables, world.service, plan.dataset, None, None, 0)
    few = [m for m in plain.members if m.sample_id not in ids(world.rows(LABELLED))]
    wrong = Lesson(few, {"new": len(few)}, {})
    found = with_pseudo_labels(
        world.store, world.tables, world.service, plan.dataset.id, plan.base.layers, None, wrong, 0
    )
    assert len(pseudo(found)) <= 1 < len(pseudo(lesson_of(world, good)))


def test_they_are_the_same_whenever_they_are_made(tmp_path: Path) -> None:
    world = started(tmp_path)
    plan = world.plan()
    first = lesson_of(world, plan)
    world.add(world.rows(numbers("pool", 40, start=9000)))
    assert [(m.sample_id, m.label) for m in pseudo(lesson_of(world, plan))] == [
        (m.sample_id, m.label) for m in pseudo(first)
    ], "samples that came after the dataset version are not looked at"
    again = world.plan()
    assert again.key == plan.key
    assert ids(lesson_of(world, again).members) == ids(first.members)
    assert ids(lesson_of(world, plan, seed=1).members) != ids(first.members)


def test_who_was_ever_labelled_gets_no_pseudo_label(tmp_path: Path) -> None:
    world = started(tmp_path, share=0.9)
    rows = world.rows(OPEN)
    world.label(*(label(s, "x", "pseudo") for s in rows[:50]))
    made = pseudo(lesson_of(world, world.plan()))
    assert made and ids(made) <= ids(rows[50:])


def test_of_many_open_samples_some_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = started(tmp_path, share=0.9)
    monkeypatch.setattr(module, "MOST_OPEN", 5)
    assert 0 < len(pseudo(lesson_of(world, world.plan()))) <= 5


def member(number: int, split: Any = "pool") -> Member:
    return Member(f"s{number}", "x", "pseudo", None, split, "audit")


@pytest.mark.parametrize("made", [member(9, "gate"), member(9, "test"), member(1)])
def test_what_judges_or_is_labelled_is_refused_even_if_it_got_so_far(made: Member) -> None:
    plain = Lesson([member(1), member(2)], {"new": 2}, {})
    with pytest.raises(PseudoLeak, match="1 pseudo-labels, of s"):
        module._joined(plain, [made], 0.3)


def test_images_are_labelled_by_the_champions_head_on_features(tmp_path: Path) -> None:
    world, space = World(looker(labelling={"pseudo": {"enabled": True}})), KnownSpace(digest(b"backbone"), 2)
    which = [n for n in range(2000) if split_of(f"group-{n}", "looker") == "pool"][:60]
    rows = [
        sample(
            n,
            "looker",
            f"photo {n}".encode(),
            embedding=np.array([1 + n % 2 * 8, 9 - n % 2 * 8], "<f2").tobytes(),
            backbone_digest=space.digest,
        )
        for n in which
    ]
    world.add(rows)
    world.label(*(label(s, ["cat", "dog"][n % 2]) for n, s in zip(which[:20], rows[:20], strict=True)))
    dataset = freeze(world.store, world.tables, "looker")
    head = LinearHead(np.array([[-1, 1], [1, -1]], np.float32), np.zeros(2, np.float32), ("cat", "dog"))
    champion = {"backbone": space.digest, "head": put_blob(world.store, head.to_bytes())}
    plain = draw_lesson(world.store, world.tables, world.service, dataset, None, space, 0)
    backbone = cast("Backbone", space)
    found = with_pseudo_labels(world.store, world.tables, world.service, dataset.id, champion, backbone, plain, 0)
    assert found.counts == {"new": 20, "replay": 0, "pseudo": 8}
    wanted = {s.sample_id: ["cat", "dog"][n % 2] for n, s in zip(which, rows, strict=True)}
    assert all(m.label == wanted[m.sample_id] for m in pseudo(found))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_the_cap_holds_in_every_lesson(known: tuple[Sorting, Plan], share: float, seed: int) -> None:
    world, plan = known
    rules = world.service.labelling.pseudo.model_copy(update={"share": share})
    world.service = world.service.model_copy(
        update={"labelling": world.service.labelling.model_copy(update={"pseudo": rules})}
    )
    found = lesson_of(world, plan, seed)
    assert len(pseudo(found)) <= share * len(found.members)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sorting, Plan]:
    world = started(tmp_path_factory.mktemp("cap"))
    return world, world.plan()


def neighbours(seed: int) -> Any:
    """An estimator whose fit takes no weights."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=3)


def test_a_pipeline_that_takes_no_weights_is_refused_by_name(tmp_path: Path) -> None:
    world = started(tmp_path)
    trainer = world.service.trainer.model_copy(update={"pipeline": f"{__name__}:neighbours", "params": {}})
    world.service = world.service.model_copy(update={"trainer": trainer})
    with pytest.raises(Weightless, match=r"KNeighborsClassifier.fit takes no sample_weight: .*labelling.pseudo"):
        world.train(world.plan())


def test_whole_backbones_are_trained_without_them() -> None:
    assert not FullTrainer.weighs and FrozenTrainer.weighs


def test_a_rare_sample_does_not_make_its_pseudo_label_outweigh_labels(tmp_path: Path) -> None:
    world = Sorting(tmp_path)
    people = world.rows(LABELLED, selection_probability=1.0)
    rare = world.rows(OPEN[:5], selection_probability=0.1)
    world.add([*people, *rare])
    members = [Member(s.sample_id, "x", "human", None, "pool", "audit") for s in people]
    members += [Member(s.sample_id, "x", "pseudo", None, "pool", "confidence") for s in rare]
    weights = np.concatenate([np.ones(len(people)), np.full(len(rare), 0.3)])
    lesson = Lesson(members=members, counts={}, left_out={}, weights=weights)
    trainer = world.service.trainer.model_copy(update={"importance": True})
    service = world.service.model_copy(update={"trainer": trainer})
    found = _weights(world.tables, service, [m.sample_id for m in members], lesson)
    assert found is not None
    assert found[len(people) :] == pytest.approx(0.3 * found[: len(people)].mean())
