"""From tables to a retrain that is asked for once: real wine and digits, cut off, repeated, and begun anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.clients.orchestrator import OrchestratorUnavailable
from edgeloop.learning.drift import begin as beginning
from edgeloop.learning.drift import looking
from edgeloop.learning.drift.acting import act
from edgeloop.learning.drift.kept import UnreadableWatch, WatchState, load_state, plot_key, state_key
from edgeloop.learning.drift.looking import Looked
from edgeloop.learning.drift.reading import AUDIT, drawn
from edgeloop.learning.drift.telling import as_json, markdown
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from tests.unit.learning.drift.test_findings import digits, wines
from tests.unit.learning.drift.world import World, wine_rater
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import looker, regressor, sample


def state_of(looked: Looked) -> WatchState:
    assert looked.state is not None
    return looked.state


def red_world(folder: Path, shared: Path, seed: int = 0) -> tuple[World, Any, Any]:
    """A champion that learned from 600 imported red wines; other red wines, and white ones."""
    world = World(folder, wine_rater())
    red, white = (wines(shared, colour, seed)[:, :11] for colour in ("red", "white"))
    world.deliver(red[:600], "reference")
    world.promote()
    return world, red[600:], white


def test_red_to_white_wine_is_found_within_40_and_one_retrain_is_asked_for(shared: Path, tmp_path: Path) -> None:
    world, red, white = red_world(tmp_path, shared)
    for start in range(0, 400, 50):
        looked = world.monitor()
        assert not looked.found
        world.deliver(red[start : start + 50], prediction="5.5")
    assert not world.monitor().found
    assert world.asked == world.ledger() == []
    found = []
    for start in range(0, 100, 20):
        world.deliver(white[start : start + 20], prediction="5.5")
        found.append(world.monitor().found)
    assert any(found[0] + found[1]), "40 white wines are enough"
    state = state_of(world.look())
    assert {f.kind for f in state.findings} >= {"inputs"}
    assert min(f.samples for f in state.findings) <= 440
    assert state.findings[0].since_at is not None
    assert state.findings[0].since_at.year == 2024, "the time of capture, not of the look"
    assert len(state.findings) > 3
    assert [a["service"] for a in world.asked] == ["wine-rater"], "many columns are one cause"
    assert world.asked[0]["reason"].startswith("drift: inputs drifted: input ")
    assert len(world.ledger()) == len(state.findings)
    assert {row["who"] for row in world.ledger()} == {"drift"}
    assert "; asked for run " in world.ledger()[0]["reason"]
    assert world.store.get(plot_key("wine-rater", state.watch))[:4] == b"\x89PNG"
    champion = world.registry.champion("wine-rater")
    assert champion is not None
    assert champion.version == "1", "a finding promotes nothing"
    text = markdown(state)
    assert "| input total sulfur dioxide |" in text
    assert f"{state.courses[0].threshold:.2f}" in text
    assert as_json(state)["drifted"] is True


def test_what_was_looked_at_is_not_looked_at_again(shared: Path, tmp_path: Path) -> None:
    world, red, white = red_world(tmp_path, shared)
    world.deliver([*red[:50], *white[:60]])
    first = world.monitor()
    assert first.found
    second = world.monitor()
    assert (second.skip, second.found) == ("nothing is new since the last look", [])
    assert second.state == first.state
    assert len(world.asked) == 1
    assert act(world.fleet, world.orchestrator, state_of(second)) == [], "the ledger knows that they were acted on"


def test_many_looks_are_as_one(shared: Path, tmp_path: Path) -> None:
    ends = []
    for name, cuts in (("one", [200]), ("many", [7, 1, 60, 132])):
        folder = tmp_path / name
        folder.mkdir()
        world, red, white = red_world(folder, shared)
        stream = [*red[:150], *white[:50]]
        start = 0
        for count in cuts:
            world.deliver(stream[start : start + count], prediction="5.5")
            start += count
            world.look()
        ends.append({c.quantity: c.points[-1] for c in state_of(world.look()).courses})
    one, many = ends
    assert one.keys() == many.keys()
    assert len(one) == 12
    for quantity, point in one.items():
        assert point.samples == many[quantity].samples
        assert point.statistic == pytest.approx(many[quantity].statistic, abs=1e-9), quantity


def test_a_new_champion_begins_a_new_watch_with_the_audit_of_its_dataset(shared: Path, tmp_path: Path) -> None:
    world, red, white = red_world(tmp_path, shared)
    world.deliver([*red[:50], *white[:100]])
    old = state_of(world.monitor())
    assert old.findings
    learned = world.deliver(white[100:900])
    world.label(learned[:5], ["6"] * 5)
    world.promote()
    world.deliver(white[900:1000])
    new = state_of(world.monitor())
    assert (new.champion, new.samples, new.findings) == ("2", 100, [])
    assert new.watch != old.watch
    assert new.reference.startswith("the 801 newest audit samples"), "from the look that found the white ones"
    assert len(world.asked) == 1
    world.deliver(red[400:460])
    assert state_of(world.monitor()).findings
    assert len(world.asked) == 2


def small() -> Service:
    return regressor(target={"name": "y"})


def drifting(world: World) -> None:
    """A champion of 80 samples, and 60 quite different ones."""
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(2, 1, (80, 2)), "reference")
    world.promote()
    world.deliver(rng.normal(9, 1, (60, 2)), prediction="1.0")


def test_a_watch_that_is_cut_off_anywhere_asks_for_the_same_one_run(tmp_path: Path) -> None:
    whole = World(tmp_path, small())
    drifting(whole)
    wanted = state_of(whole.monitor())
    count = 0

    def run(fuse: Fuse) -> None:
        nonlocal count
        count += 1
        folder = tmp_path / str(count)
        folder.mkdir()
        world = World(folder, small())
        drifting(world)
        sound = world.store, world.fleet, world.orchestrator
        world.store = Guarded(world.store, fuse, "get", "put", "create", "delete", "list")
        world.fleet = Guarded(world.fleet, fuse, "record", "entry", "release_of")
        world.orchestrator = Guarded(world.orchestrator, fuse, "run")
        try:
            world.monitor()
        except Crash:
            world.store, world.fleet, world.orchestrator = sound
            world.monitor()
        world.store, world.fleet, world.orchestrator = sound
        assert len(world.asked) == 1
        assert len(world.ledger()) == len(wanted.findings)
        state = state_of(world.look())
        assert {f.quantity: f.samples for f in state.findings} == {f.quantity: f.samples for f in wanted.findings}
        assert world.store.size(plot_key("rater", state.watch))

    assert crash_everywhere(run) > 8, "there are fewer calls than that: does anything happen at all?"


def test_a_run_that_could_not_be_asked_for_is_asked_for_later(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    drifting(world)
    world.orchestrator.healthy = False
    with pytest.raises(OrchestratorUnavailable):
        world.monitor()
    assert world.ledger() == []
    world.orchestrator.healthy = True
    assert world.monitor().skip == "nothing is new since the last look"
    assert len(world.asked) == 1
    assert world.ledger()


class Racing(MemoryStore):
    """A store in which somebody else looks just before a look is saved."""

    rival: Any = None

    def create(self, key: str, data: bytes) -> bool:
        if "/looks/" in key and self.rival:
            rival, self.rival = self.rival, None
            rival()
        return super().create(key, data)


def test_of_two_looks_at_once_one_counts(tmp_path: Path) -> None:
    store = Racing()
    world = World(tmp_path, small(), store)
    drifting(world)
    store.rival = world.look
    looked = world.look()
    assert (looked.skip, looked.found) == ("another look was quicker", [])
    assert state_of(looked).findings
    assert [info.key for info in store.list("drift/rater/looks")] == [state_key("rater", 1)]


def test_two_looks_are_kept(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    drifting(world)
    rng = np.random.default_rng(1)
    for _ in range(4):
        world.look()
        world.deliver(rng.normal(9, 1, (2, 2)))
    assert [i.key for i in world.store.list("drift/rater/looks")] == [state_key("rater", n) for n in (3, 4)]


def test_a_watch_that_is_damaged_is_named(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    drifting(world)
    world.look()
    sound = world.store.get(state_key("rater", 1))
    for broken in (b"", b"PK", sound[: len(sound) // 2], sound[:-40], sound.replace(b"state.npy", b"slate.npy")):
        world.store.put(state_key("rater", 1), broken)
        with pytest.raises(UnreadableWatch, match=r"drift/rater/looks/0000000001\.npz holds no drift watch"):
            world.look()
    world.store.delete(state_key("rater", 1))
    assert world.look().found


def test_without_a_champion_or_samples_nothing_is_tested(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    assert world.look().skip == "there is no champion yet"
    world.promote()
    state = state_of(world.look())
    assert state.courses == []
    assert as_json(state)["next"].startswith("nothing is tested yet: wait for audit samples")
    assert load_state(world.store, "nobody") is None


def test_hard_samples_and_refused_ones_are_not_compared(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(2, 1, (80, 2)), "reference")
    world.promote()
    world.deliver(rng.normal(9, 1, (100, 2)), "confidence")
    assert state_of(world.monitor()).samples == 0
    odd = [sample(5000 + n, payload=b"[9, 9]", selected_by="audit") for n in range(100)]
    world.tables.merge("samples", [s.model_dump() | {"extra": None} for s in odd], Sample)
    assert state_of(world.monitor()).samples == 0
    assert world.asked == []


def test_samples_of_one_group_count_once(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(2, 1, (80, 2)), "reference")
    world.promote()
    for _ in range(3):
        world.deliver(rng.normal(9, 1, (40, 2)), group="one film")
        world.look()
    state = state_of(world.look())
    assert (state.samples, state.findings) == (1, [])


def test_without_a_reference_the_first_samples_are_one(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    rng = np.random.default_rng(0)
    world.promote()
    world.deliver(rng.normal(2, 1, (40, 2)))
    assert state_of(world.look()).courses == []
    world.deliver(rng.normal(2, 1, (40, 2)))
    state = state_of(world.look())
    assert state.reference == "the first 50 audit samples after the champion was made"
    assert {c.points[-1].samples for c in state.courses} == {30}
    world.deliver(rng.normal(9, 1, (40, 2)))
    assert world.look().found


def test_answers_of_another_release_are_no_reference_for_the_champions(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(2, 1, (80, 2)), "reference")
    world.promote()
    world.deliver(rng.normal(2, 1, (70, 2)), model_digest=digest(b"old"), prediction="1.0")
    assert [c.quantity for c in state_of(world.look()).courses] == ["input a", "input b"]
    world.deliver(rng.normal(2, 1, (70, 2)), prediction="1.0")
    world.look()
    world.deliver(rng.normal(2, 1, (40, 2)), prediction="7.0")
    assert [f.quantity for f in world.look().found] == ["predictions"]


def test_a_part_of_a_long_watch_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LONGEST", 100)
    world = World(tmp_path, small())
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(2, 1, (80, 2)), "reference")
    world.promote()
    states = []
    for _ in range(3):
        world.deliver(rng.normal(2, 1, (110, 2)))
        states.append(state_of(world.look()))
    assert [s.part for s in states] == [0, 1, 2]
    assert len({s.watch for s in states}) == 1
    assert states[1].reference.startswith("the 110 newest audit samples")
    assert sum(s.alpha for s in states) < beginning.ALPHA
    assert states[1].alpha == pytest.approx(states[0].alpha / 10)


def test_other_columns_need_another_watch(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    drifting(world)
    first = state_of(world.look())
    world.service = small().model_copy(update={"features": [*(small().features or [])][::-1]})
    assert state_of(world.look()).watch != first.watch


def random_features(pixels: Any, width: int = 48) -> Any:
    """Embeddings of a frozen random layer: float16 [samples, width]."""
    weights = np.random.default_rng(99).normal(size=(pixels.shape[1], width)) / 10
    return np.maximum(pixels @ weights, 0).astype("<f2")


def test_digits_of_another_source_are_found_by_embeddings_that_nodes_sent(shared: Path, tmp_path: Path) -> None:
    backbone = digest(b"random layer")
    world = World(tmp_path, looker(labels=[str(n) for n in range(10)]))
    mnist, usps = (random_features(digits(shared, name, 0)[:900]) for name in ("mnist", "usps"))
    numbers = iter(range(10_000))

    def send(vectors: Any) -> None:
        said = [{"prediction": "1", "confidence": 0.9, "model_digest": world.release or "none"} for _ in vectors]
        brought = [{"embedding": v.tobytes(), "backbone_digest": backbone} for v in vectors]
        world.accept([sample(next(numbers), "looker", b"", **s, **b) for s, b in zip(said, brought, strict=True)])

    send(mnist[:500])
    world.promote({"backbone": backbone, "head": digest(b"head")})
    for start in range(500, 900, 100):
        send(mnist[start : start + 100])
        assert not world.monitor().found
    for start in range(0, 300, 50):
        send(usps[start : start + 50])
        world.monitor()
    state = state_of(world.look())
    assert [f.quantity for f in state.findings] == ["embeddings"]
    assert 400 < state.findings[0].samples <= 700
    assert abs(state.findings[0].since - 400) < 60
    assert len(world.asked) == 1


def test_a_shift_that_was_found_is_not_found_again_under_the_next_champions(tmp_path: Path) -> None:
    world = World(tmp_path, small())
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(2, 1, (300, 2)))
    world.promote()
    made = world.deliver(rng.normal(9, 1, (30, 2)))
    assert world.monitor().found
    asked = len(world.asked)
    for version, reference in (("2", "the first 50 audit samples"), ("3", "the 121 newest audit samples")):
        world.label([made[int(version)]], ["5"])
        world.promote()
        for _ in range(3):
            world.deliver(rng.normal(9, 1, (40, 2)))
            state = state_of(world.monitor())
        assert (state.champion, state.findings, len(world.asked)) == (version, [], asked)
        assert state.reference.startswith(reference)
        assert state.since is not None


def test_only_the_rows_of_the_audit_become_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, small())
    world.deliver(np.ones((80, 2)), "reference")
    world.deliver(np.ones((5, 2)))
    counts: dict[str, int] = {}
    read = Tables.read

    def counted(tables: Tables, name: str, *args: Any, **options: Any) -> Any:
        rows = read(tables, name, *args, **options)
        counts[name] = len(rows)
        return rows

    monkeypatch.setattr(Tables, "read", counted)
    versions = {name: world.tables.version(name) for name in ("samples", "verdicts")}
    assert len(drawn(world.tables, versions, AUDIT)) == counts["samples"] == 5
