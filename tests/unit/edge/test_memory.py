"""A model that does not fit is refused with figures, before it is loaded where that can be foreseen."""

from __future__ import annotations

import sys

import pytest

from edgeloop.edge.memory import MemoryBudget, ModelTooBig, estimate, give_back_unused, resident_bytes

MIB = 1024 * 1024


class Meter:
    """Resident memory as the test says, and how often freed memory was given back."""

    def __init__(self, used_mb: int | None, unused_mb: int = 0) -> None:
        self.used_mb = used_mb
        self.unused_mb = unused_mb

    def resident(self) -> int | None:
        return None if self.used_mb is None else self.used_mb * MIB

    def give_back(self) -> None:
        if self.used_mb is not None:
            self.used_mb -= self.unused_mb
        self.unused_mb = 0

    def budget(self, limit_mb: int | None) -> MemoryBudget:
        return MemoryBudget(limit_mb, resident=self.resident, give_back=self.give_back)


def test_a_model_that_would_not_fit_is_refused_with_figures() -> None:
    budget = Meter(80).budget(150)
    budget.check("cats sha256:1", 10 * MIB, 2)
    with pytest.raises(
        ModelTooBig,
        match=r"model cats sha256:2 needs about 72 MB beside 80 MB in use, over the limit of 150 MB: raise memory_mb",
    ):
        budget.check("cats sha256:2", 20 * MIB, 2)


def test_every_interpreter_counts() -> None:
    budget = Meter(80).budget(150)
    budget.check("cats", 20 * MIB, 1)
    with pytest.raises(ModelTooBig):
        budget.check("cats", 20 * MIB, 4)


def test_what_turns_out_too_big_is_refused_after_the_load() -> None:
    meter = Meter(150)
    budget = meter.budget(150)
    budget.confirm("cats")
    meter.used_mb = 151
    with pytest.raises(ModelTooBig, match=r"model cats is loaded and the node holds 151 MB in use, over .* of 150 MB"):
        budget.confirm("cats")


def test_memory_that_nobody_uses_is_given_back_before_anything_is_refused() -> None:
    meter = Meter(140, unused_mb=60)
    meter.budget(150).check("cats", 10 * MIB, 2)
    assert meter.used_mb == 80
    meter = Meter(200, unused_mb=60)
    meter.budget(150).confirm("cats")
    assert meter.used_mb == 140


@pytest.mark.parametrize(("used_mb", "limit_mb"), [(10_000, None), (None, 1)])
def test_without_a_limit_or_a_meter_nothing_is_refused(used_mb: int | None, limit_mb: int | None) -> None:
    budget = Meter(used_mb).budget(limit_mb)
    budget.check("cats", 10_000 * MIB)
    budget.confirm("cats")


@pytest.mark.alone
def test_the_process_knows_what_it_holds() -> None:
    before = resident_bytes()
    if not sys.platform.startswith("linux"):
        assert before is None
        return
    assert before is not None
    block = bytearray(b"x") * (64 * MIB)
    grown = resident_bytes()
    assert grown is not None
    assert grown - before > 60 * MIB
    del block
    give_back_unused()
    shrunk = resident_bytes()
    assert shrunk is not None
    assert shrunk - before < 32 * MIB
    with pytest.raises(ModelTooBig, match="over the limit of 1 MB"):
        MemoryBudget(1).confirm("cats")


def test_an_estimate_grows_with_layers_and_interpreters() -> None:
    assert estimate(0, 1) > 0
    assert estimate(20 * MIB, 2) > estimate(20 * MIB, 1) > estimate(10 * MIB, 1)
