"""The rollout's bench measures what it says: a fleet by seed, calls by kind, and faults that no good release has."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.bench.rollout import faulty
from edgeloop.bench.rollout.bench import RolloutOptions, bench_rollout
from edgeloop.bench.rollout.clusters import count_cluster_calls
from edgeloop.bench.rollout.counted import count_sql, counted_store
from edgeloop.bench.rollout.faulty import KINDS, Fault, World, fault_of, play_faulty, play_rare
from edgeloop.bench.rollout.nodes import Node
from edgeloop.bench.rollout.result import ControlRun, FaultyKind, PerNodeRun, RolloutBench, TickTime
from edgeloop.bench.rollout.site import LEAST_FIRST, Member, Site, TooFewNodes, ring_sizes
from edgeloop.bench.rollout.text import rollout_text
from edgeloop.clients.objects import MemoryStore
from edgeloop.fleet.rollouts.evidence import RingEvidence
from edgeloop.fleet.rollouts.verdict import Check, Verdict
from edgeloop.samples.records import Report, digest
from edgeloop.samples.releases import Wanted
from edgeloop.store import FleetStore

OLD, NEW = digest(b"1"), digest(b"2")


def site_of(nodes: int, rings: int = 3, offline: float = 0.05, failing: float = 0.02, seed: int = 0) -> Site:
    return Site(
        folder=Path(), nodes=nodes, rings=rings, offline=offline, failing=failing, seed=seed, port=1, old=OLD, new=NEW
    )


def run_of(nodes: int = 1000, seconds: float = 1.0, calls: int = 100, rings: int = 3) -> ControlRun:
    once = TickTime(seconds=seconds, cpu=seconds / 2, messages=nodes)
    return ControlRun(
        nodes=nodes, rings=rings, state="done", reason="why", switched=nodes, failed=0, start=once, ticks=[once],
        wall_seconds=9.0, calls={"sql commit": calls}, look=once, peak_mb=100.0,
    )  # fmt: skip


def result_of(**changes: object) -> RolloutBench:
    per_node = PerNodeRun(
        nodes=100, answered_seconds=10.0, seconds=20.0, cpu_seconds=10.0, nodes_by_outcome={"serving": 100}
    )
    values = {"offline": 0.05, "failing": 0.02, "seed": 0, "cpus": 2, "load": 0.5, "rollout": run_of()}
    more = {"same_size": run_of(100), "per_node": per_node, "sizes": [run_of()], "clusters": [], "faulty": []}
    return RolloutBench.model_validate(values | more | changes)


# --- the fleet


def test_rings_grow_by_one_factor() -> None:
    assert ring_sizes(10_000, 3) == [100, 900, 9000]
    assert ring_sizes(100, 3)[0] == LEAST_FIRST
    with pytest.raises(TooFewNodes, match="at least 45"):
        ring_sizes(44, 6)


@given(st.integers(45, 20_000), st.sampled_from([1, 2, 3, 4, 6]))
def test_every_node_is_in_one_ring(nodes: int, rings: int) -> None:
    sizes = ring_sizes(nodes, rings)
    assert sum(sizes) == nodes and len(sizes) == rings and min(sizes) >= 1


@settings(max_examples=20)
@given(st.integers(100, 2000), st.integers(0, 5))
def test_each_ring_has_its_share_of_bad_nodes(nodes: int, seed: int) -> None:
    members = site_of(nodes, seed=seed).members()
    assert len({member.name for member in members}) == nodes
    assert not any(member.is_offline and member.is_failing for member in members)
    for ring, size in enumerate(ring_sizes(nodes, 3)):
        mine = [member for member in members if member.ring == ring]
        assert sum(member.is_offline for member in mine) == round(0.05 * size)
        assert sum(member.is_failing for member in mine) == round(0.02 * size)
    assert members == site_of(nodes, seed=seed).members()
    assert members != site_of(nodes, seed=seed + 1).members()


def test_a_simulated_node_speaks_as_a_real_one() -> None:
    record = Wanted(service="bench-rollout", ring=0, release=NEW, sequence=2)
    good, bad = Node(Member("a", 0, False, False)), Node(Member("b", 0, False, True))
    for node in (good, bad):
        assert node.obey(record.model_copy(update={"release": OLD}), NEW)
        assert node.obey(record, NEW) and not node.obey(record, NEW)
    said = [Report.model_validate_json(node.report()) for node in (good, bad)]
    assert [(one.serving, one.refused) for one in said] == [(NEW, None), (OLD, NEW)]
    assert all(len(one.confidence_histogram) == 10 and one.wanted == NEW for one in said)


def test_too_small_a_fleet_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    told: list[str] = []
    for nodes, tasks in ((44, 0), (100, 44)):
        with pytest.raises(TooFewNodes, match="44 nodes are too few for 6 rings"):
            bench_rollout(tmp_path / "bench", RolloutOptions(nodes, 0, 0, 0, 0, tasks, tmp_path), told.append)
    assert told == [] and not list(tmp_path.iterdir())


# --- counting


def test_what_is_asked_of_a_store_is_counted_by_kind() -> None:
    calls: Counter[str] = Counter()
    store = counted_store(MemoryStore(), calls)
    store.put("a", b"1")
    store.create("a", b"2")
    assert store.get("a") == b"1" and store.size("b") is None
    assert calls == {"objects put": 2, "objects get": 1, "objects head": 1}


def test_sql_is_counted_by_kind(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()
    stop = count_sql(calls)
    try:
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'x.db'}")
        with engine.begin() as connection:
            connection.execute(sa.text("create table t (n integer)"))
        calls.clear()
        with engine.begin() as connection:
            connection.execute(sa.text("insert into t values (:n)"), [{"n": n} for n in range(5)])
        with engine.begin() as connection:
            connection.execute(sa.text("select n from t")).all()
        engine.dispose()
    finally:
        stop()
    assert calls == {"sql write": 1, "sql commit": 1, "sql read": 1}


def test_a_cluster_is_asked_by_ring_and_page() -> None:
    found = {(nodes, rings): count_cluster_calls(nodes, rings).calls for nodes in (100, 400) for rings in (3, 6)}
    assert found[100, 3] == found[400, 3], "no ring has more than one page"
    assert found[100, 6] == {name: 2 * count for name, count in found[100, 3].items()}
    paged = count_cluster_calls(1200, 3).calls
    assert paged["list nodes"] > found[400, 3]["list nodes"]
    assert paged["patch daemonsets"] == found[400, 3]["patch daemonsets"]


# --- faulty releases


def test_faulty_releases_stay_in_the_first_ring() -> None:
    found = play_faulty(16, seed=7)
    assert [kind.kind for kind in found] == list(KINDS)
    assert all(kind.runs == sum(kind.states.values()) == 4 for kind in found)
    assert all(set(kind.states) <= {"reverted", "holding"} and kind.states["reverted"] >= 3 for kind in found), found
    assert all(kind.beyond_first_ring == kind.nodes_beyond == 0 for kind in found)
    assert all(0 < kind.most_touched <= LEAST_FIRST for kind in found)


def test_a_release_without_a_fault_goes_everywhere() -> None:
    """Else the bench would find nothing beyond the first ring whatever is released."""
    fleet = FleetStore("sqlite://")
    draw = random.Random(1)
    world = World(fleet, 0, Fault("answers wrongly", 0.0, 0.0), draw)
    view = world.play()
    fleet.close()
    assert view.state == "done", view
    assert world.beyond() > 100


def test_what_is_let_through_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with judges that pass everything: the count is not zero by itself."""

    def blind(evidence: RingEvidence, *_: object) -> Verdict:
        outcome = "pass" if evidence.switched or evidence.failed else "inconclusive"
        return Verdict(outcome, [Check("nodes", outcome, "blind")], "blind")  # type: ignore[arg-type]

    monkeypatch.setattr("edgeloop.fleet.rollouts.decide.judge_ring", blind)
    found = play_faulty(2, seed=7)[:2]
    assert sum(kind.nodes_beyond for kind in found) > 100
    assert all(kind.beyond_first_ring == 1 for kind in found)


def test_faults_are_drawn_by_seed() -> None:
    assert fault_of(random.Random(3), "falls back") == fault_of(random.Random(3), "falls back")
    assert 0.5 <= fault_of(random.Random(3), "falls back").share <= 1
    assert play_rare(2, seed=1) == play_rare(2, seed=1)
    assert faulty.NODES == 200


# --- the result


def test_ratios_are_of_seconds_per_node() -> None:
    found = result_of()
    assert found.ratio == pytest.approx(0.2 / 0.002)
    assert found.answered_ratio == pytest.approx(0.1 / 0.002)
    assert found.same_size_ratio == pytest.approx(0.2 / 0.02)
    assert found.cpu_ratio == pytest.approx(0.1 / 0.001)
    assert found.missed == []
    assert result_of(per_node=None, same_size=None).ratio is None


def test_what_does_not_hold_is_told() -> None:
    reached = FaultyKind(kind="falls back", runs=1, beyond_first_ring=1, nodes_beyond=7)
    held = run_of(seconds=3.0).model_copy(update={"state": "holding", "peak_mb": 501.0})
    found = result_of(rollout=held, faulty=[reached], sizes=[run_of(100, calls=100), run_of(calls=201)])
    words = ["holding", "a tick took 3.00 s", "501 MB", "33 times as slow", "7 nodes beyond", "201 calls"]
    assert len(found.missed) == len(words)
    for line, word in zip(found.missed, words, strict=True):
        assert word in line
    text = rollout_text(found)
    assert all(f"missed: {line}" in text for line in found.missed)
