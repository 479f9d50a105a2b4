"""No hour ever gets more than its budget, and what there is goes to the most valuable, the audit before all."""

from __future__ import annotations

import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.edge.selection import lease
from edgeloop.edge.selection.budget import HourlyBudget
from edgeloop.edge.selection.lease import LONGEST, LeaseFile
from edgeloop.edge.selection.rolling import RollingHour
from tests.unit.edge.choosing import SERVICE, Chooser, Clock, answer, config, unsure

HOUR = 3600.0
LIMIT = 20_000


@dataclass
class World:
    """A node in true time, with clocks that lie about it."""

    folder: Path
    true: float = 0.0
    salt: int = 0

    def __post_init__(self) -> None:
        self.spent: list[tuple[float, int]] = []
        self.boots: list[Clock] = []
        self.start(0.0)

    def start(self, origin: float | None) -> None:
        """A process begins as if the one before was killed: in the same boot, or with its clock wherever it likes."""
        if origin is not None:
            self.clock = Clock(origin)
            self.boots.append(self.clock)
        self.salt += 1
        self.chooser = Chooser(self.folder, self.salt.to_bytes(4, "big"), self.clock)

    def wait(self, seconds: float) -> None:
        self.true += seconds
        self.clock.now += seconds

    def ask(self, policy: Any, size: int, confidence: float) -> None:
        if self.chooser.ask(policy, answer(confidence), size).selected_by:
            self.spent.append((self.true, size))

    def worst_hour(self) -> int:
        """Most bytes in any hour of true time, both ends counted."""
        return max((sum(s for at, s in self.spent if t <= at <= t + HOUR) for t, _ in self.spent), default=0)


asks = st.tuples(st.just("ask"), st.sampled_from([100, 1500, 6000, 15_000]), st.floats(0, 1))
waits = st.tuples(st.just("wait"), st.sampled_from([0.001, 1.0, 59.9, 60.0, 600.0, 1800.0, 3540.0, 3600.0, 3660.0]))
restarts = st.tuples(st.just("restart"), st.sampled_from([0.0, 30.0, 1800.0, 5000.0]), st.none() | st.floats(-1e6, 1e9))
jumps = st.tuples(st.just("back"), st.floats(0, 1e5))
bursts = st.tuples(st.just("burst"), st.integers(1, 40), st.sampled_from([100, 1500]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(asks, asks, bursts, waits, waits, restarts, jumps), max_size=60))
def test_no_hour_exceeds_the_budget_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    policy = config(audit=0.4, informative=unsure(0.9), bytes_per_hour=LIMIT)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        world = World(Path(folder))
        patch.setattr(lease, "boot_of", lambda clock: str(world.boots.index(clock)))
        patch.setattr(lease, "write_durably", lambda path, data: path.write_bytes(data))
        for step in steps:
            match step:
                case ("ask", int(size), float(confidence)):
                    world.ask(policy, size, confidence)
                case ("burst", int(count), int(size)):
                    for _ in range(count):
                        world.ask(policy, size, 0.2)
                case ("wait", float(seconds)):
                    world.wait(seconds)
                case ("restart", float(seconds), origin):
                    world.wait(seconds)
                    world.start(origin)
                case ("back", float(seconds)):
                    world.clock.now -= seconds
        assert world.worst_hour() <= LIMIT


@pytest.mark.parametrize("wait", [59.0, 61.0, 1800.0, 3599.0])
def test_the_rest_of_a_lease_is_not_spent_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: float) -> None:
    """Else a process of the same boot would take it for as old as the lease."""
    monkeypatch.setattr(lease, "boot_of", lambda clock: "one")
    policy = config(audit=1.0, bytes_per_hour=60_000)
    world = World(tmp_path)
    world.ask(policy, 100, 0.5)
    world.wait(wait)
    world.ask(policy, 900, 0.5)
    world.start(None)
    world.wait(3599 - wait + 62)
    for _ in range(70):
        world.ask(policy, 1000, 0.5)
    assert world.worst_hour() <= 60_000


def test_a_restart_spends_nothing_twice_and_frees_all_an_hour_later(tmp_path: Path) -> None:
    policy = config(audit=1.0, bytes_per_hour=LIMIT)
    world = World(tmp_path)
    for _ in range(3):
        while len(world.spent) < 20:
            world.ask(policy, 1000, 0.5)
        world.start(world.clock.now + 7)
        world.ask(policy, 1000, 0.5)
        assert len(world.spent) == 20
        world.wait(LONGEST + 60)
        world.ask(policy, 1000, 0.5)
        assert len(world.spent) == 21, "all of it is free again"
        world.wait(LONGEST + 60)
        world.spent.clear()


def test_a_killed_process_costs_no_more_than_what_it_had_leased(tmp_path: Path) -> None:
    policy = config(audit=1.0, bytes_per_hour=600_000)
    world = World(tmp_path)
    world.ask(policy, 100, 0.5)
    world.start(5.0)
    total = 0
    while (choice := world.chooser.ask(policy, answer(), 1000)).selected_by:
        total += 1000
    assert choice.dropped == "budget"
    assert 600_000 - 10_000 - 1000 < total <= 600_000 - 100


def test_a_node_that_restarts_often_gets_its_budget_back_all_the_same(tmp_path: Path) -> None:
    """Over a reboot no time passes, but the time that a process saw counts."""
    policy = config(audit=1.0, bytes_per_hour=LIMIT)
    world = World(tmp_path)
    world.ask(policy, LIMIT, 0.5)
    hours = 0.0
    while len(world.spent) < 2 and hours < 4 * HOUR:
        world.start(random.Random(hours).random() * 1e6)
        for _ in range(20):
            world.wait(60)
            world.ask(policy, LIMIT, 0.5)
        hours += 1200
    assert HOUR <= hours <= 1.6 * HOUR
    assert world.worst_hour() <= LIMIT


def left(path: Path) -> list[float]:
    return [seconds for seconds, _ in LeaseFile(path, time.monotonic, time.time).entries]


def test_time_between_two_processes_of_one_boot_counts_and_over_a_reboot_none(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    LeaseFile(path, time.monotonic, time.time).write([(3600.0, 5), (600.0, 7)])
    value = json.loads(path.read_text())
    assert value["boot"], "the kernel names its boot"
    path.write_text(json.dumps(value | {"clock": value["clock"] - 1800}))
    assert left(path) == [pytest.approx(1800, abs=60)]
    path.write_text(json.dumps(value | {"clock": value["clock"] + 1e6}))
    assert left(path) == [3600.0, 600.0], "a clock that went back says nothing"
    path.write_text(json.dumps(value | {"clock": value["clock"] - 1800, "boot": "another"}))
    assert left(path) == [3600.0, 600.0]
    path.write_text(json.dumps(value | {"spent": [[1e12, 5]]}))
    assert left(path) == [pytest.approx(LONGEST, abs=60)]


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", '{"spent": [[1]]}', '{"spent": [["x", 1]]}', '{"spent": [[NaN, 5]]}', "\xff", "[" * 9999],
)
def test_no_file_makes_a_budget_fail_or_more_than_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(text, encoding="latin-1")
    budget = HourlyBudget(path, time.monotonic, time.time)
    budget.advance()
    assert not budget.admits_audit(1, 1_000_000)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 100)), max_size=80))
def test_a_rolling_hour_is_the_sum_of_the_last_61_minutes(steps: list[tuple[int, int, int]]) -> None:
    rolling, minute = RollingHour(4), 0
    added: list[tuple[int, int, int]] = []
    for later, account, amount in steps:
        minute += later
        rolling.advance(minute)
        rolling.add(minute, account, amount)
        added.append((minute, account, amount))
        live = [one for one in added if one[0] > minute - 61]
        assert rolling.totals == [sum(n for _, a, n in live if a == account) for account in range(4)]
        assert rolling.total == sum(rolling.totals) == sum(n for _, n in rolling.minutes())


# --- who gets it


@pytest.fixture
def on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "write_durably", lambda path, data: None)


def day(
    chooser: Chooser, policy: Any, hours: float, every: float, seed: int = 0
) -> list[tuple[float, str | None, float]]:
    """(time, selected_by, confidence) of inputs of 1000 bytes whose confidence is uniform."""
    rng, seen = random.Random(seed), []
    for _ in range(int(hours * HOUR / every)):
        chooser.clock.now += rng.expovariate(1 / every)
        confidence = rng.random()
        seen.append((chooser.clock.now, chooser.ask(policy, answer(confidence), 1000).selected_by, confidence))
    return seen


@pytest.mark.usefixtures("on_memory")
def test_a_budget_goes_to_the_most_valuable(tmp_path: Path) -> None:
    """After an hour of learning, what is kept is nearly what hindsight would keep."""
    chooser = Chooser(tmp_path)
    seen = day(chooser, config(audit=0.01, informative=unsure(1.0), bytes_per_hour=100_000), 3, 3.0)
    late = [(name, confidence) for at, name, confidence in seen if at > HOUR]
    kept = [confidence for name, confidence in late if name == "threshold"]
    best = sorted(confidence for _, confidence in late)[: len(kept)]
    assert len(kept) > 100
    assert sum(kept) / len(kept) < 1.5 * sum(best) / len(best)
    early = [confidence for at, name, confidence in seen if name == "threshold" and at <= HOUR]
    assert sum(early) / len(early) < 0.25, "even while learning"


@pytest.mark.usefixtures("on_memory")
@pytest.mark.parametrize(("audit", "budget"), [(0.05, 150_000), (0.2, 400_000)])
def test_the_audit_does_not_starve_where_the_budget_holds_it(tmp_path: Path, audit: float, budget: int) -> None:
    """Rules would take many times the budget."""
    chooser = Chooser(tmp_path)
    seen = day(chooser, config(audit=audit, informative=unsure(1.0), bytes_per_hour=budget), 4, 3.0)
    assert chooser.starved == 0
    audited = sum(name == "audit" for _, name, _ in seen)
    assert abs(audited - audit * len(seen)) <= 5 * (audit * (1 - audit) * len(seen)) ** 0.5
    assert chooser.tally["threshold"] > 0


@pytest.mark.usefixtures("on_memory")
def test_where_even_the_audit_is_too_much_rules_get_nothing_and_it_is_counted(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    seen = day(chooser, config(audit=0.5, informative=unsure(1.0), bytes_per_hour=100_000), 2, 3.0)
    assert sum(name == "threshold" for at, name, _ in seen if at > 600) == 0
    assert chooser.starved > 500
    assert chooser.tally["budget"] >= chooser.starved


@pytest.mark.usefixtures("on_memory")
def test_a_budget_that_is_wide_enough_drops_nothing(tmp_path: Path) -> None:
    chooser = Chooser(tmp_path)
    seen = day(chooser, config(audit=0.1, informative=unsure(0.5), bytes_per_hour=3_000_000), 2, 3.0)
    assert "budget" not in chooser.tally
    assert all(name for _, name, confidence in seen if confidence < 0.5)


def test_a_lease_is_written_at_most_once_a_minute_or_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(lease, "write_durably", lambda path, data: writes.append(data))
    chooser = Chooser(tmp_path)
    seen = day(chooser, config(audit=1.0, bytes_per_hour=6_000_000), 1, 1.0)
    assert all(name == "audit" for _, name, _ in seen)
    assert len(writes) <= 65
    assert max(map(len, writes)) < 4000, "bounded"
    assert (tmp_path / f"{SERVICE}.json").exists() is False


def test_when_all_is_an_hour_old_the_file_says_so_and_is_left_alone(tmp_path: Path) -> None:
    chooser, path = Chooser(tmp_path), tmp_path / f"{SERVICE}.json"
    policy = config(audit=1e-9, informative=unsure(), bytes_per_hour=LIMIT)
    chooser.ask(policy, answer(0.1), 1000)
    assert json.loads(path.read_text())["spent"] == [[LONGEST, 1000]]
    chooser.clock.now += LONGEST
    chooser.ask(policy, answer(0.9), 1000)
    assert json.loads(path.read_text())["spent"] == []
    path.unlink()
    chooser.clock.now += HOUR
    chooser.ask(policy, answer(0.9), 1000)
    assert not path.exists()
