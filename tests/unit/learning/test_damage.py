"""Models that no longer load: the round ends inconclusive and says which blob it was; once mended, the next works."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeloop.clients.registry import ForeignVersion, MemoryRegistry, ModelVersion
from edgeloop.learning.blobs import DamagedBlob, sound_blob
from edgeloop.learning.evaluate import Evaluation, evaluate
from edgeloop.learning.gate_models import DamagedCandidate, load_pair
from edgeloop.learning.gate_text import decision_text
from edgeloop.learning.rounds import NothingJudged, Plan, end_round
from edgeloop.learning.train import Candidate, candidate_key, load_candidate, put_blob
from edgeloop.samples.dataset import dataset_key
from edgeloop.samples.releases import blob_key
from tests.unit.learning.loop import Loop, rater
from tests.unit.learning.photos import World, photos_of, watcher

FIRST, MORE = range(120), range(1000, 1100)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A service with a champion and new data."""
    made = Loop(tmp_path)
    made.collect(FIRST)
    promotion = made.round()
    assert promotion is not None
    assert promotion.promoted
    made.collect(MORE)
    return made


def champion_of(loop: Loop) -> ModelVersion:
    found = loop.registry.champion("rater")
    assert found is not None
    return found


def evaluated(loop: Loop, plan: Plan, candidate: Candidate) -> Evaluation:
    return evaluate(loop.store, loop.tables, loop.service, plan.dataset, candidate, loop.fleet)


def swap(data: bytes) -> bytes:
    """Other bytes of the same length."""
    return bytes([data[0] ^ 1]) + data[1:]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda data: None,
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "of another digest": swap,
}


def damage(loop: Loop, name: str, how: str) -> bytes:
    """Spoil a blob; return what it was."""
    data = loop.store.get(blob_key(name))
    spoilt = DAMAGES[how](data)
    if spoilt is None:
        loop.store.delete(blob_key(name))
    else:
        loop.store.put(blob_key(name), spoilt)
    return data


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_champion_ends_the_round_and_stays(loop: Loop, how: str) -> None:
    blob = champion_of(loop).layers["model"]
    whole = damage(loop, blob, how)
    plan = loop.plan()
    assert plan.damage is not None
    assert plan.skip == f"inconclusive: {plan.damage}"
    assert plan.damage.startswith(f"champion version 1 of rater cannot be loaded (blob {blob} ")
    assert plan.damage.endswith(
        "put the bytes back under that name, or set the alias champion to another version, then run again"
    )
    ended = end_round(loop.fleet, plan, plan.damage)
    assert end_round(loop.fleet, plan, plan.damage) == ended
    assert (ended.promoted, ended.verdict, ended.former, loop.champion()) == (False, "inconclusive", "1", "1")
    rows = [r for r in loop.fleet.history("rater") if r["verdict"] == "inconclusive"]
    assert [(r["event"], r["reason"], r["former"], r["dataset"]) for r in rows] == [("gate", plan.damage, "1", None)]
    assert loop.plan().key == plan.key
    loop.store.put(blob_key(blob), whole)
    mended = loop.round()
    assert mended is not None
    assert mended.verdict in {"pass", "fail"}


def test_a_champion_whose_bytes_are_no_model(loop: Loop) -> None:
    champion = champion_of(loop)
    other = put_blob(loop.store, b"not a model")
    damaged = champion.model_copy(update={"layers": champion.layers | {"model": other}})
    loop.registry.versions[:] = [damaged]
    plan = loop.plan()
    assert plan.damage is not None
    assert "ONNX model of 11 bytes does not load" in plan.damage
    assert f"model {other}" in plan.damage


def test_a_champion_that_names_no_layers(loop: Loop) -> None:
    loop.registry.versions[:] = [champion_of(loop).model_copy(update={"layers": {}})]
    plan = loop.plan()
    assert plan.damage is not None
    assert plan.damage.startswith("champion version 1 of rater cannot be loaded (it names no layer model): mend what")


def test_a_champion_whose_dataset_is_gone(loop: Loop) -> None:
    loop.store.delete(dataset_key("rater", champion_of(loop).dataset))
    plan = loop.plan()
    assert plan.damage is not None
    assert f"dataset version {champion_of(loop).dataset} of rater is not at" in plan.damage


class Foreign(MemoryRegistry):
    """A registry whose champion was registered by somebody else."""

    def champion(self, service: str) -> ModelVersion | None:
        raise ForeignVersion(f"version 7 of {service} has no tag 'layers': promote one that edgeloop registered")


def test_a_champion_that_another_program_registered(loop: Loop) -> None:
    ours, loop.registry = loop.registry, Foreign()
    plan = loop.plan()
    assert plan.damage is not None
    assert "version 7 of rater has no tag" in plan.damage
    end_round(loop.fleet, plan, plan.damage)
    assert loop.fleet.history("rater")[0]["reason"] == plan.damage
    loop.registry = ours
    assert loop.round() is not None


def test_a_champion_that_breaks_while_a_candidate_is_trained(loop: Loop) -> None:
    plan = loop.plan()
    candidate = loop.train(plan)
    blob = champion_of(loop).layers["model"]
    whole = damage(loop, blob, "missing")
    evaluation = evaluated(loop, plan, candidate)
    assert evaluation.decision.verdict == "inconclusive"
    assert evaluation.damage == evaluation.decision.reason
    assert f"blob {blob} is not at" in evaluation.damage
    assert loop.fleet.gate_uses("rater", "later") == {}
    with pytest.raises(NothingJudged, match="end it instead"):
        loop.promote(plan, candidate, evaluation, champion_of(loop))
    end_round(loop.fleet, plan, evaluation.damage)
    assert "inconclusive: champion version 1" in decision_text(evaluation, loop.service.gate, "none", "1")
    loop.store.put(blob_key(blob), whole)
    assert loop.plan() == plan
    assert evaluated(loop, plan, loop.train(plan)).damage is None


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("role", ["model", "pipeline"])
def test_a_damaged_candidate_is_made_again(loop: Loop, role: str, how: str) -> None:
    plan = loop.plan()
    candidate = loop.train(plan)
    damage(loop, candidate.layers[role], how)
    evaluation = evaluated(loop, plan, candidate)
    assert evaluation.damage is not None
    assert f"candidate {candidate.key} of rater cannot be loaded (blob {candidate.layers[role]} " in evaluation.damage
    assert evaluation.decision.verdict == "inconclusive"
    end_round(loop.fleet, plan, evaluation.damage)
    assert load_candidate(loop.store, "rater", candidate.key) is None
    assert loop.plan() == plan
    again = loop.train(plan)
    assert again.layers == candidate.layers
    assert evaluated(loop, plan, again).damage is None
    assert loop.champion() == "1"


def test_a_candidate_of_sound_bytes_that_does_not_load_is_kept_to_look_at(loop: Loop) -> None:
    plan = loop.plan()
    made = loop.train(plan)
    broken = made.model_copy(update={"layers": made.layers | {"model": put_blob(loop.store, b"no")}})
    loop.store.put(candidate_key("rater", made.key), json.dumps(broken.model_dump(mode="json")).encode())
    evaluation = evaluated(loop, plan, broken)
    assert evaluation.damage is not None
    assert evaluation.damage.endswith("train with another seed or trainer")
    assert load_candidate(loop.store, "rater", made.key) == broken


def test_a_blob_is_what_its_name_says(loop: Loop) -> None:
    name = put_blob(loop.store, b"1234")
    assert sound_blob(loop.store, name) == b"1234"
    loop.store.put(blob_key(name), b"1235")
    with pytest.raises(DamagedBlob, match=f"blob {name} at .* has 4 bytes of digest sha256:"):
        sound_blob(loop.store, name)


@pytest.fixture(scope="module")
def great_expectations() -> None:
    """Imported with its warnings unheard: it imports modules of the standard library that are on their way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations.expectations  # noqa: F401


@pytest.fixture(scope="module")
def world(great_expectations: None, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Photos with a champion."""
    made = World(tmp_path_factory.mktemp("world"), watcher(shared))
    photos = photos_of(shared / "datasets" / "cats-dogs" / "asirra", 45)
    made.reference(photos[:60])
    made.collect()
    _, promotion = made.round()
    assert promotion.promoted, promotion.reason
    made.reference(photos[60:])
    made.collect()
    return made


@pytest.mark.parametrize("role", ["backbone", "head"])
@pytest.mark.parametrize("how", DAMAGES)
def test_each_layer_of_an_image_model_is_checked(world: World, role: str, how: str) -> None:
    champion = world.registry.champion("looker")
    assert champion is not None
    key = blob_key(champion.layers[role])
    whole = world.store.get(key)
    spoilt = DAMAGES[how](whole)
    world.store.delete(key)
    if spoilt is not None:
        world.store.put(key, spoilt)
    try:
        plan = world.plan()
    finally:
        world.store.put(key, whole)
    assert plan.damage is not None
    assert plan.damage.startswith(
        f"champion version {champion.version} of looker cannot be loaded (blob {champion.layers[role]} "
    )
    assert world.plan().damage is None


def test_a_head_of_another_width_or_with_other_labels_is_refused(world: World) -> None:
    from edgeloop.clients.models import LinearHead, read_head

    plan = world.plan()
    candidate = world.train(plan)
    head = read_head(world.store.get(blob_key(candidate.layers["head"])))
    assert isinstance(head, LinearHead)
    wrong = {
        "takes 7 features, its backbone gives 1024": LinearHead(head.weights[:7], head.bias, head.labels),
        "knows the labels ['wolf']": LinearHead(head.weights, head.bias, ("cat", "wolf")),
    }
    for reason, one in wrong.items():
        layers = candidate.layers | {"head": put_blob(world.store, one.to_bytes())}
        with pytest.raises(DamagedCandidate) as caught:
            load_pair(world.store, world.service, candidate.model_copy(update={"layers": layers}))
        assert reason in str(caught.value)


def test_a_head_is_compared_with_the_features_that_it_learned_from(world: World) -> None:
    plan = world.plan()
    candidate = world.train(plan)
    evaluation = evaluate(world.store, world.tables, world.service, plan.dataset, candidate)
    agreed = evaluation.decision.agreement
    assert agreed is not None
    assert (agreed.trained, agreed.share) == ("features", 1)
    assert agreed.samples >= 10
    text = decision_text(evaluation, world.service.gate, "2", "1")
    assert f"| export answers as on the features learned from | 100.0% of {agreed.samples} |" in text


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_pipeline_is_not_unpickled(tmp_path: Path, how: str) -> None:
    from tests.unit.learning.trainers.test_incremental import HERE

    loop = Loop(tmp_path, rater(trainer=HERE))
    loop.collect(FIRST)
    loop.round()
    loop.collect(MORE)
    fine = loop.plan()
    blob = champion_of(loop).layers["pipeline"]
    damage(loop, blob, how)
    plan = loop.plan()
    assert plan.damage is not None
    assert plan.damage.startswith(f"champion version 1 of rater cannot be loaded (blob {blob} ")
    with pytest.raises(DamagedBlob, match=blob):
        loop.train(fine)
