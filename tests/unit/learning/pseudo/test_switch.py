"""A champion that learned from pseudo-labels and drops on the audit slice ends them, until a person says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.registry import ModelVersion
from edgeloop.learning.pseudo.switch import Duel, allow, fresh_duel, is_stopped, is_worse, last_clean
from edgeloop.learning.rounds import base_of
from edgeloop.learning.train import Base, Candidate, candidate_key
from edgeloop.samples.records import canonical
from edgeloop.samples.releases import blob_key
from tests.unit.learning.pseudo.world import Sorting, numbers

FRESH = numbers("gate", 40, start=9000)


class Story:
    """Version 1 learned from people; version 2, which serves, from pseudo-labels too, and says x and y the wrong way
    round if it is ``bad``."""

    def __init__(self, folder: Path, *, bad: bool, **pseudo: Any) -> None:
        self.world = world = Sorting(folder, **pseudo)
        world.collect([*numbers("pool", 20), *numbers("gate", 10)])
        self.clean = world.crown(world.train(world.plan()))
        world.add(world.rows(numbers("pool", 40, start=1000)))
        world.collect(numbers("pool", 10, start=500))
        candidate = world.train(world.plan())
        assert candidate.trained_on["pseudo"] > 0
        self.serving = world.crown(self.ruined(candidate) if bad else candidate)

    def ruined(self, candidate: Candidate) -> Candidate:
        """The candidate's record with the layers of a model that learned all labels the wrong way round."""
        other = Sorting(Path(self.world.fleet.database._engine.url.database or "").parent / "other", enabled=False)
        other.collect(numbers("pool", 20), wrong=True)
        layers = other.train(other.plan()).layers
        for name in layers.values():
            self.world.store.put(blob_key(name), other.store.get(blob_key(name)))
        made = candidate.model_copy(update={"layers": layers})
        self.world.store.put(candidate_key("sorter", made.key), canonical(made.model_dump(mode="json")))
        return made

    def ledger(self) -> list[dict[str, Any]]:
        return [row for row in self.world.fleet.history("sorter") if row["event"] == "pseudo"]


@pytest.fixture(autouse=True)
def _other_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()


def test_a_drop_stops_them_and_training_starts_from_the_last_champion_without(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=True)
    story.world.collect(FRESH)
    plan = story.world.plan()
    assert plan.base is not None and plan.base.start is not None
    assert (plan.base.version, plan.base.start.version, plan.base.pseudo) == ("2", "1", False)
    assert plan.base.start.layers == story.clean.layers
    [row] = story.ledger()
    assert (row["verdict"], row["version"], row["former"], row["who"]) == ("off", "2", "1", "audit")
    assert (
        "of 40 fresh audit samples it alone answers 0 rightly and version 1, the last without them, 40" in row["reason"]
    )
    assert "edgeloop label sorter --allow-pseudo --by NAME" in row["reason"]
    candidate = story.world.train(plan)
    assert "pseudo" not in candidate.trained_on
    assert candidate.trained_on == {"new": 10, "replay": 20}, "what is new is so for version 1"
    assert candidate.base is not None and candidate.base.version == "2", "the gate compares with what serves"
    champion = story.world.registry.champion("sorter")
    assert champion is not None and champion.version == "2", "nothing is promoted by it"


def test_a_round_that_was_cut_off_plans_the_same_again(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=True)
    story.world.collect(FRESH)
    plan = story.world.plan()
    assert plan.skip is None
    assert story.world.plan() == plan
    assert len(story.ledger()) == 1


def test_a_champion_that_holds_keeps_them(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=False)
    story.world.collect(FRESH)
    plan = story.world.plan()
    assert plan.base is not None
    assert (plan.base.start, plan.base.pseudo) == (None, True)
    assert story.ledger() == []


def test_samples_that_judged_it_and_samples_that_no_audit_chose_do_not_tell(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=True)
    story.world.collect(FRESH[:20], selected_by="margin")
    story.world.collect(numbers("pool", 20, start=9000))
    story.world.collect(numbers("test", 20, start=9000))
    assert duel(story) == Duel(0, 0, 0)
    plan = story.world.plan()
    assert plan.base is not None and plan.base.pseudo
    story.world.collect(FRESH[20:])
    assert duel(story) == Duel(20, 0, 20)


def duel(story: Story) -> Duel | None:
    plan = story.world.plan()
    versions = base_of(story.serving), base_of(story.clean)
    return fresh_duel(story.world.store, story.world.tables, story.world.service, plan.dataset, *versions)


def test_they_stay_off_until_a_person_allows_them(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=True)
    fleet, service = story.world.fleet, story.world.service
    assert not allow(fleet, service, "ann"), "nothing is stopped yet"
    story.world.collect(FRESH)
    story.world.plan()
    assert is_stopped(fleet, "sorter")
    candidate = story.world.train(story.world.plan())
    story.world.crown(candidate)
    story.world.collect(numbers("pool", 10, start=12_000))
    plan = story.world.plan()
    assert plan.base is not None
    assert (plan.base.version, plan.base.start, plan.base.pseudo) == ("3", None, False), (
        "another champion changes it not"
    )
    assert allow(fleet, service, "ann")
    assert not allow(fleet, service, "ann")
    plan = story.world.plan()
    assert plan.base is not None and plan.base.pseudo
    assert [(r["verdict"], r["who"]) for r in story.ledger()] == [("on", "ann"), ("off", "audit")]


def test_a_person_overrules_the_audit_on_the_same_champion(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=True)
    story.world.collect(FRESH)
    story.world.plan()
    assert allow(story.world.fleet, story.world.service, "ann")
    plan = story.world.plan()
    assert plan.base is not None
    assert (plan.base.start, plan.base.pseudo) == (None, True)


def test_a_model_that_is_gone_says_nothing_here(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=True)
    story.world.collect(FRESH)
    story.world.store.delete(blob_key(story.clean.layers["model"]))
    plan = story.world.plan()
    assert plan.base is not None
    assert plan.base.start is None
    assert story.ledger() == []


def test_the_last_clean_champion_is_sought_through_all_that_learned_so(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=False)
    world = story.world
    world.collect(numbers("pool", 10, start=12_000))
    third = world.crown(world.train(world.plan()))
    clean = last_clean(world.store, "sorter", base_of(third))
    assert clean is not None and clean.version == "1"
    assert last_clean(world.store, "sorter", base_of(story.clean)) is None
    by_hand = ModelVersion(service="sorter", version="9", run_id="", key="sha256:x", dataset="", layers={})
    assert last_clean(world.store, "sorter", base_of(by_hand)) is None
    assert last_clean(world.store, "sorter", Base(version="9", dataset="", layers={})) is None


def test_a_few_losses_are_no_drop_and_many_are() -> None:
    assert not is_worse(Duel(50, 0, 0), 0.05)
    assert not is_worse(Duel(50, 0, 4), 0.05)
    assert not is_worse(Duel(50, 10, 14), 0.05)
    assert not is_worse(Duel(50, 20, 0), 0.05)
    assert is_worse(Duel(50, 0, 10), 0.05)
    assert is_worse(Duel(200, 10, 40), 0.05)


def test_looks_after_every_sample_raise_few_false_alarms() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(150):
        won = np.cumsum(rng.random(120) < 0.5)
        alarms += any(is_worse(Duel(n, int(won[n - 1]), n - int(won[n - 1])), 0.05) for n in range(1, 121))
    assert alarms <= 0.05 * 150


def test_frames_of_one_session_are_one_witness(tmp_path: Path) -> None:
    story = Story(tmp_path, bad=True)
    story.world.collect(FRESH[:30], group=f"group-{FRESH[0]}")
    assert duel(story) == Duel(1, 0, 1)
    plan = story.world.plan()
    assert plan.base is not None and plan.base.pseudo, "one session stops nothing"
