"""Rounds on bad data: a named error, or a gate that promotes nothing; the champion stays, and good data mends it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.learning.evaluate import FOREIGN_LABEL, evaluate
from edgeloop.learning.heads import TooFewClasses, UnknownLabel
from edgeloop.learning.leak import Leak, check_lesson
from edgeloop.learning.pool import NothingToLearn
from edgeloop.learning.rounds import Promotion
from edgeloop.learning.trainers.checks import ConstantFeatures, TooFewSamples
from edgeloop.quality.validate import suite_of, validate
from edgeloop.samples.dataset import Members, dataset_members, freeze, members_of
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, LabelSource, Sample
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.samples.splits import split_of
from tests.unit.learning.loop import GATE, Loop
from tests.unit.learning.photos import World, photos_of, watcher
from tests.unit.samples.make import classifier, label, sample

FIRST = range(150)


def pool_numbers(start: int, count: int) -> list[int]:
    found = (n for n in range(start, start + 100 * count) if split_of(f"group-{n}", "rater") == "pool")
    return [next(found) for _ in range(count)]


class Sorter(Loop):
    """Rounds of a classifier that sorts rows into x, y and z by their first feature."""

    def __init__(self, folder: Path, service: Service | None = None) -> None:
        super().__init__(folder, service or classifier(name="rater", gate=GATE))

    def sort(
        self,
        numbers: Sequence[int],
        answer: Callable[[float], str | None] = lambda a: "xyz"[int(a // 4)],
        row: Callable[[float, float], list[float]] = lambda a, b: [a, b],
        source: LabelSource = "human",
    ) -> list[Sample]:
        """Accepted samples; ``answer`` labels by the first feature, or not at all."""
        made: list[Sample] = []
        labels: list[Label] = []
        for number in numbers:
            a, b = (float(v) for v in np.random.default_rng(number).uniform(0, 12, 2))
            made.append(sample(number, payload=encode_features(row(a, b))))
            text = answer(a)
            if text is not None:
                labels.append(label(made[-1], text, source, seconds=number))
        self.accept(made)
        self.tables.merge("labels", [to_row(x) for x in labels], Label)
        return made


@pytest.fixture
def fresh(tmp_path: Path) -> Sorter:
    return Sorter(tmp_path)


def started(loop: Sorter) -> Sorter:
    """With a champion."""
    loop.sort(FIRST)
    promotion = loop.round()
    assert promotion is not None
    assert promotion.promoted, promotion.reason
    return loop


def refused(loop: Sorter, error: type[EdgeloopError]) -> str:
    """The message with which training refuses; the champion is what it was."""
    before = loop.champion()
    plan = loop.plan()
    assert plan.skip is None
    with pytest.raises(error) as caught:
        loop.train(plan)
    assert loop.champion() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_class_only(fresh: Sorter) -> None:
    fresh.sort(FIRST, answer=lambda a: "x")
    assert "have only the labels ['x']: label samples of at least two classes" in refused(fresh, TooFewClasses)
    fresh.sort(range(1000, 1150))
    promotion = fresh.round()
    assert promotion is not None


def test_fewer_samples_than_classes(fresh: Sorter) -> None:
    fresh.sort(pool_numbers(0, 2))
    assert refused(fresh, TooFewSamples).startswith("2 training samples for 3 labels")
    started(fresh)


def test_all_labels_missing(fresh: Sorter) -> None:
    fresh.sort(FIRST, answer=lambda a: None)
    assert fresh.plan().skip == "no labelled samples to learn from yet"
    plan = fresh.plan()
    with pytest.raises(NothingToLearn, match="has no labelled pool samples: label some first"):
        fresh.train(plan)
    started(fresh)
    before = fresh.champion()
    fresh.sort(range(2000, 2100), answer=lambda a: None)
    assert fresh.plan().skip == "no new data since version 1"
    assert fresh.champion() == before


def test_contradictory_labels_promote_nothing(fresh: Sorter) -> None:
    """Equal rows, each with another label: whatever is learned from them is no better."""
    started(fresh)
    fresh.sort(range(1000, 1400), answer=lambda a: "xyz"[int(a * 1e6) % 3], row=lambda a, b: [6, 6], source="device")
    promotion = fresh.round()
    assert promotion is not None
    assert not promotion.promoted
    assert promotion.verdict in {"fail", "inconclusive"}
    assert fresh.champion() == "1"


def test_a_label_outside_the_set(fresh: Sorter) -> None:
    """Ingest refuses one; it is here if it was taken out of the service after it was given."""
    started(fresh)
    fresh.sort(pool_numbers(1000, 3), answer=lambda a: "wolf")
    assert "the labels ['wolf']: add them to the service, or leave them out" in refused(fresh, UnknownLabel)


def test_a_label_outside_the_set_judges_nothing(fresh: Sorter) -> None:
    started(fresh)
    gate = [n for n in range(1000, 1100) if split_of(f"group-{n}", "rater") == "gate"]
    fresh.sort(gate, answer=lambda a: "wolf")
    fresh.sort(pool_numbers(3000, 20))
    plan = fresh.plan()
    evaluation = fresh.evaluate(plan, fresh.train(plan))
    assert evaluation.left_out["gate"] == {FOREIGN_LABEL: len(gate)}
    assert evaluation.decision.samples == len([n for n in FIRST if split_of(f"group-{n}", "rater") == "gate"])


def test_constant_features(fresh: Sorter) -> None:
    fresh.sort(FIRST, row=lambda a, b: [1, 1])
    assert "have the same 2 features" in refused(fresh, ConstantFeatures)


def test_one_constant_feature_is_borne(tmp_path: Path) -> None:
    loop = Sorter(tmp_path)
    loop.sort(FIRST, row=lambda a, b: [a, 1])
    promotion = loop.round()
    assert promotion is not None
    assert promotion.promoted


@pytest.fixture(scope="module")
def great_expectations() -> None:
    """Imported with its warnings unheard: it imports modules of the standard library that are on their way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations.expectations  # noqa: F401


def test_a_batch_of_another_width_is_set_aside(fresh: Sorter, great_expectations: None) -> None:
    started(fresh)
    wide = [sample(n, payload=encode_features([1, 2, 3])) for n in range(1000, 1040)]
    fresh.tables.merge("samples", [to_row(s) for s in wide], Sample)
    fresh.tables.merge("labels", [to_row(label(s, "x")) for s in wide], Label)
    found = validate(fresh.tables, fresh.service, suite_of(fresh.service, Path()), fresh.store)
    assert (found.accepted, found.quarantined) == (0, 40)
    assert found.reasons == {"row has 3 values: send 2 (a, b)": 40}
    assert fresh.plan().skip == "no new data since version 1"


def test_a_batch_of_another_width_that_was_accepted_is_refused_by_name(fresh: Sorter) -> None:
    started(fresh)
    fresh.sort(pool_numbers(1000, 5), row=lambda a, b: [a, b, 1])
    assert "3" in refused(fresh, BadInput)


def test_an_empty_batch(fresh: Sorter, great_expectations: None) -> None:
    assert fresh.plan().skip == "no labelled samples to learn from yet"
    started(fresh)
    assert fresh.sort([]) == []
    assert validate(fresh.tables, fresh.service, [], fresh.store).checked == 0
    assert fresh.plan().skip == "no new data since version 1"
    assert fresh.round() is None


def test_too_few_gate_samples_are_inconclusive(fresh: Sorter) -> None:
    fresh.sort(pool_numbers(0, 60))
    promotion = fresh.round()
    assert promotion is not None
    assert (promotion.promoted, promotion.verdict) == (False, "inconclusive")
    assert promotion.reason == "0 gate samples with trusted labels are too few, 20 are needed: label more"
    assert fresh.champion() is None


def test_pseudo_labels_are_in_the_pool_only(fresh: Sorter) -> None:
    fresh.sort(FIRST, source="pseudo")
    dataset = freeze(fresh.store, fresh.tables, "rater")
    assert (dataset.counts["gate"], dataset.counts["test"]) == (0, 0)
    assert {m.split for m in members_of(fresh.tables, "rater", dataset.tables)} == {"pool"}
    with pytest.raises(ValueError, match="trust cannot name pseudo"):
        classifier(gate={"trust": ["human", "pseudo"]})


def test_every_lesson_of_a_round_is_checked_for_leaks(fresh: Sorter, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.sort(FIRST)
    dataset = freeze(fresh.store, fresh.tables, "rater")
    members = members_of(fresh.tables, "rater", dataset.tables)
    pool = [m.sample_id for m in members if m.split == "pool"]
    check_lesson(fresh.tables, dataset, pool)
    for side in ("gate", "test"):
        leaked = next(m.sample_id for m in members if m.split == side)
        with pytest.raises(Leak, match=f"sample {leaked} of rater would be learned from, but its group .* to {side}"):
            check_lesson(fresh.tables, dataset, [*pool, leaked])
    everybody = as_pool(dataset_members(fresh.store, fresh.tables, dataset))
    monkeypatch.setattr("edgeloop.learning.pool.dataset_members", lambda *_: everybody)
    refused(fresh, Leak)


def as_pool(members: Members) -> Members:
    """Members as a fault of the split would make them."""
    import pyarrow as pa

    table = members.table
    return Members(table.set_column(table.schema.get_field_index("split"), "split", pa.array(["pool"] * len(table))))


def test_a_round_says_the_same_twice(tmp_path: Path) -> None:
    """Same seed, same data: the same candidate and the same decision, but for the time that answers took."""
    said: list[tuple[Promotion | None, Any]] = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        loop = started(Sorter(folder))
        loop.sort(range(1000, 1200))
        plan = loop.plan()
        candidate = loop.train(plan)
        evaluation = evaluate(loop.store, loop.tables, loop.service, plan.dataset, candidate, loop.fleet)
        decision = evaluation.decision.model_copy(update={"latency": None})
        said.append((loop.round(), json.dumps([candidate.layers, decision.model_dump(mode="json")])))
    assert said[0] == said[1]


def test_features_of_another_backbone_are_not_learned_from(
    shared: Path, tmp_path: Path, great_expectations: None
) -> None:
    """What a cache holds under another backbone's name is not looked at; the candidate is the same without it."""
    found: list[dict[str, str]] = []
    for name, foreign in (("without", False), ("with", True)):
        world = World(tmp_path / name, watcher(shared))
        photos = photos_of(shared / "datasets" / "cats-dogs" / "asirra", 8)
        world.reference(photos)
        world.collect()
        plan = world.plan()
        first = world.train(plan)
        if foreign:
            prefix = f"features/{first.layers['backbone'].removeprefix('sha256:')}/"
            others = f"features/{'0' * 64}/"
            for info in list(world.store.list(prefix)):
                world.store.put(others + info.key.removeprefix(prefix), world.store.get(info.key)[::-1])
        found.append(world.train(world.plan().model_copy(update={"seed": 9})).layers)
    assert found[0] == found[1]
