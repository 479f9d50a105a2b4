"""A candidate learns from the pool, from all that is new and a fair part of what was; and is made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.models import OnnxModel
from edgeloop.errors import BadInput
from edgeloop.learning.pool import NothingToLearn, draw_lesson
from edgeloop.learning.train import Base, choose_mode, load_candidate, round_key
from edgeloop.samples.dataset import freeze, members_of
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, LabelSource
from edgeloop.samples.releases import blob_key
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from tests.unit.learning.loop import Loop, rater
from tests.unit.samples.make import label, looker, regressor

BASE = Base(version="1", dataset="sha256:d", layers={})


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def base_of(loop: Loop) -> Base:
    return Base(version="1", dataset=freeze(loop.store, loop.tables, "rater").id, layers={})


def chosen(loop: Loop, base: Base | None, seed: int = 0) -> tuple[set[str], dict[str, int]]:
    dataset = freeze(loop.store, loop.tables, "rater")
    former = base.dataset if base else None
    lesson = draw_lesson(loop.store, loop.tables, loop.service, dataset, former, None, seed)
    ids = [m.sample_id for m in lesson.members]
    assert len(set(ids)) == len(ids)
    assert lesson.left_out == {}
    return set(ids), lesson.counts


def in_split(loop: Loop, split: str) -> set[str]:
    dataset = freeze(loop.store, loop.tables, "rater")
    return {m.sample_id for m in members_of(loop.tables, "rater", dataset.tables) if m.split == split}


def test_gate_and_test_samples_never_train(loop: Loop) -> None:
    samples = loop.collect(range(60))
    base = base_of(loop)
    samples += loop.collect(range(100, 160), source="device")
    found, _ = chosen(loop, base)
    groups = {s.sample_id: s.group for s in samples}
    assert {split_of(groups[name], "rater") for name in found} == {"pool"}
    assert found == in_split(loop, "pool")
    assert not found & (in_split(loop, "gate") | in_split(loop, "test"))
    assert in_split(loop, "gate")
    assert in_split(loop, "test")


def test_replay_is_bounded_and_everything_new_is_learned(loop: Loop) -> None:
    loop.service = rater(trainer={"replay": 10})
    loop.collect(range(60))
    old, base = in_split(loop, "pool"), base_of(loop)
    loop.collect(range(100, 130))
    new = in_split(loop, "pool") - old
    found, counts = chosen(loop, base)
    assert counts == {"new": len(new), "replay": 10}
    assert new <= found
    assert len(found & old) == 10


def test_without_a_base_everything_is_new(loop: Loop) -> None:
    loop.service = rater(trainer={"replay": 0})
    loop.collect(range(30))
    found, counts = chosen(loop, None)
    assert found == in_split(loop, "pool")
    assert counts == {"new": len(found), "replay": 0}


def test_replay_is_repeatable_and_uniform(loop: Loop) -> None:
    loop.service = rater(trainer={"replay": 10})
    loop.collect(range(50))
    old, base = sorted(in_split(loop, "pool")), base_of(loop)
    assert chosen(loop, base, 3) == chosen(loop, base, 3)
    drawn = dict.fromkeys(old, 0)
    runs = 40
    for seed in range(runs):
        for name in chosen(loop, base, seed)[0]:
            drawn[name] += 1
    expected = runs * 10 / len(old)
    chi = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert chi < 2 * len(old), "some samples are replayed more than others"


def test_of_no_pool_samples_nothing_is_learned(loop: Loop) -> None:
    gate = [n for n in range(40) if split_of(f"group-{n}", "rater") == "gate"]
    loop.collect(gate)
    with pytest.raises(NothingToLearn, match="rater has no labelled pool samples: label some first"):
        chosen(loop, None)


def test_a_candidate_has_learned(loop: Loop) -> None:
    loop.collect(range(60))
    candidate = loop.train(loop.plan())
    assert (candidate.mode, candidate.base, candidate.service) == ("sklearn", None, "rater")
    assert set(candidate.layers) == {"model", "pipeline"}
    model = OnnxModel(loop.store.get(blob_key(candidate.layers["model"])), ["a", "b"], None)
    assert model.predict(encode_features([4, 3])).value == pytest.approx(5, abs=0.3)


def test_a_candidate_is_made_once(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.collect(range(60))
    plan = loop.plan()
    first = loop.train(plan)
    assert load_candidate(loop.store, "rater", first.key) == first

    def again(*_: object) -> Any:
        raise AssertionError("trained twice")

    monkeypatch.setattr("edgeloop.learning.trainers.table.fit_pipeline", again)
    assert loop.train(plan) == first


def test_the_same_data_makes_the_same_model(tmp_path: Path) -> None:
    layers = []
    for name in "ab":
        (tmp_path / name).mkdir()
        loop = Loop(tmp_path / name)
        loop.collect(list(range(60)) if name == "a" else list(range(59, -1, -1)))
        layers.append(loop.train(loop.plan()).layers)
    assert layers[0] == layers[1]


def test_a_key_names_all_that_a_candidate_is_made_of() -> None:
    arguments: dict[str, Any] = {
        "service": regressor(),
        "dataset": "sha256:d",
        "base": BASE,
        "mode": "sklearn",
        "seed": 0,
    }
    changes: list[dict[str, Any]] = [
        {"service": regressor(trainer={"params": {"alpha": 0.5}})},
        {"service": regressor(name="other")},
        {"dataset": "sha256:e"},
        {"base": None},
        {"base": BASE.model_copy(update={"version": "2"})},
        {"mode": "full"},
        {"seed": 1},
    ]
    keys = [round_key(**(arguments | change)) for change in changes]
    assert len({round_key(**arguments), *keys}) == len(changes) + 1
    same = {"service": regressor(description="another", rings=[0]), "base": BASE.model_copy()}
    assert round_key(**(arguments | same)) == round_key(**arguments)


@pytest.mark.parametrize(
    ("service", "mode", "base", "chosen_mode"),
    [
        (regressor(), "auto", None, "sklearn"),
        (regressor(), "sklearn", BASE, "sklearn"),
        (looker(), "auto", None, "head"),
        (looker(trainer={"backbone": "xception"}), "auto", None, "full"),
        (looker(trainer={"backbone": "xception"}), "auto", BASE, "head"),
        (looker(), "full", BASE, "full"),
        (looker(), "head", BASE, "head"),
    ],
)
def test_which_mode_is_meant(service: Any, mode: Any, base: Base | None, chosen_mode: str) -> None:
    assert choose_mode(service, mode, base) == chosen_mode


@pytest.mark.parametrize(("service", "mode"), [(regressor(), "head"), (regressor(), "full"), (looker(), "sklearn")])
def test_a_mode_that_does_not_fit_is_refused(service: Any, mode: Any) -> None:
    with pytest.raises(BadInput, match=f"mode {mode} is for .*, {service.name} is {service.kind}: use"):
        choose_mode(service, mode, None)


@pytest.mark.parametrize(("value", "source"), [("7.0", "human"), (None, "human"), (None, "device")])
def test_a_label_that_was_corrected_or_confirmed_is_new(loop: Loop, value: str | None, source: LabelSource) -> None:
    made = {s.sample_id: s for s in loop.collect(range(30), source="device")}
    base = base_of(loop)
    name = sorted(in_split(loop, "pool"))[0]
    rows = loop.tables.read("labels", ["sample_id", "label"])
    said = value or next(r["label"] for r in rows if r["sample_id"] == name)
    loop.tables.merge("labels", [to_row(label(made[name], said, source, seconds=9999))], Label)
    assert chosen(loop, base)[1]["new"] == (source == "human")
