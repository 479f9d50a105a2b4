"""What a model cannot use is left out before anything is drawn, and counted by the reason."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.learning.features import NO_INPUT, OTHER_BACKBONE, UNUSABLE, KnownSpace, Space
from edgeloop.learning.pool import Lesson, NothingToLearn, draw_lesson, unusable
from edgeloop.samples.dataset import freeze
from edgeloop.samples.records import Label, Sample, Verdict
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables
from tests.unit.samples.make import START, label, looker, picture, sample, withheld

OLD, NEW = KnownSpace("sha256:" + "a" * 64, 2), KnownSpace("sha256:" + "b" * 64, 2)
POOL = [n for n in range(200) if split_of(f"group-{n}", "looker") == "pool"]


class World:
    """Accepted and labelled samples of ``looker``."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.tables = Tables("looker", self.store.table)
        self.service = looker(trainer={"backbone": "some.tflite", "replay": 5})

    def add(self, samples: Sequence[Sample]) -> str:
        """Add them; returns the name of the dataset version that results."""
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        self.tables.merge("labels", [to_row(label(s, "cat")) for s in samples], Label)
        verdicts = [Verdict(sample_id=s.sample_id, accepted=True, at=START) for s in samples]
        self.tables.merge("verdicts", [to_row(v) for v in verdicts], Verdict)
        return freeze(self.store, self.tables, "looker").id

    def draw(self, space: Space | None, former: str | None = None) -> Lesson:
        dataset = freeze(self.store, self.tables, "looker")
        return draw_lesson(self.store, self.tables, self.service, dataset, former, space, 0)


def raw(numbers: Sequence[int]) -> list[Sample]:
    return [sample(n, "looker", picture(n)) for n in numbers]


def bare(numbers: Sequence[int], space: KnownSpace) -> list[Sample]:
    return [withheld(n, [n, 1], space.digest) for n in numbers]


def names(samples: Sequence[Sample]) -> set[str]:
    return {s.sample_id for s in samples}


def test_features_of_the_models_backbone_are_learned_from_beside_raw_inputs() -> None:
    world, mixed = World(), [*raw(POOL[:3]), *bare(POOL[3:9], OLD)]
    world.add(mixed)
    lesson = world.draw(OLD)
    assert {m.sample_id for m in lesson.members} == names(mixed)
    assert (lesson.counts, lesson.left_out) == ({"new": 9, "replay": 0}, {})


def test_what_is_of_no_use_takes_no_place_in_the_replay() -> None:
    world, seen, lost = World(), raw(POOL[:7]), bare(POOL[7:40], OLD)
    former = world.add([*seen, *lost])
    new = bare(POOL[40:43], NEW)
    world.add([*new, *bare(POOL[43:45], OLD)])
    lesson = world.draw(NEW, former)
    drawn = {m.sample_id for m in lesson.members}
    assert lesson.counts == {"new": 3, "replay": 5}
    assert names(new) <= drawn
    assert len(drawn & names(seen)) == 5
    assert lesson.left_out.keys() == {OTHER_BACKBONE}
    assert 2 < lesson.left_out[OTHER_BACKBONE] <= 35, (
        "both new ones, and those that were drawn before enough were found"
    )
    assert world.draw(NEW, former) == lesson


def test_reasons_are_told_apart() -> None:
    world = World()
    broken = withheld(POOL[3], [1, 2, 3], NEW.digest)
    world.add([*raw(POOL[:1]), *bare(POOL[1:3], OLD), broken])
    assert world.draw(NEW).left_out == {OTHER_BACKBONE: 2, UNUSABLE: 1}
    assert world.draw(None).left_out == {NO_INPUT: 3}
    ids = [s.sample_id for s in [*raw(POOL[:1]), broken]]
    assert unusable(world.store, world.tables, ids, NEW) == {broken.sample_id: UNUSABLE}


def test_of_nothing_that_can_be_used_nothing_is_learned() -> None:
    world = World()
    world.add(bare(POOL[:4], OLD))
    with pytest.raises(NothingToLearn, match=rf"no pool samples to learn from here \(4 have {OTHER_BACKBONE}\): use"):
        world.draw(NEW)


def test_of_no_samples_none_is_of_no_use() -> None:
    assert unusable(MemoryStore(), Tables("looker", MemoryStore().table), [], OLD) == {}
