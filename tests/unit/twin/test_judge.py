"""The verdict of a rehearsal: every budget can refuse, and what was not really seen never passes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edgeloop.samples.delivery import TwinRules
from edgeloop.twin.judge import FEW, judge
from tests.unit.twin.house import profile, report


def test_what_keeps_to_everything_passes() -> None:
    assert judge(report()) == ("pass", [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"self_check": False}, "own probe"),
        ({"errors": 1, "first_error": "HTTP 500"}, r"1 of 200 inputs got no answer, max_errors is 0 \(HTTP 500\)"),
        ({"same": 195}, r"195 of 200 answers \(97.5%\).*min_agreement is 98.0%"),
        ({"p99_ms": 501.0}, "up to 501.0 ms, the budget of bench is 500 ms"),
        ({"profile": profile(slowdown=5), "p99_ms": 101.0}, r"505.0 ms \(101.0 ms here, slowdown 5\)"),
        ({"peak_mb": 513.0}, r"more memory \(513.0 MB\) than the 512 MB of bench"),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, dict) else "",
)
def test_each_budget_refuses(changes: dict[str, Any], said: str) -> None:
    outcome, (reason,) = judge(report(**changes))
    assert outcome == "fail"
    assert re.search(said, reason), reason


@pytest.mark.parametrize(
    "changes",
    [
        {"errors": 1, "rules": TwinRules(max_errors=0.01)},
        {"same": 196},
        {"p99_ms": 500.0},
        {"profile": profile(slowdown=5), "p99_ms": 100.0},
        {"peak_mb": 512.0},
        {"self_check": None},
    ],
    ids=lambda v: "+".join(v),
)
def test_a_budget_that_is_just_kept_is_kept(changes: dict[str, Any]) -> None:
    assert judge(report(**changes)) == ("pass", [])


def test_all_that_is_wrong_is_said() -> None:
    outcome, reasons = judge(report(errors=3, same=1, peak_mb=900.0, p99_ms=900.0))
    assert outcome == "fail" and len(reasons) == 4


def test_what_broke_off_is_all_that_is_said() -> None:
    assert judge(report(same=0), "the node ended with 1") == ("fail", ["the node ended with 1"])


@pytest.mark.parametrize("same", [200, 0])
def test_drawn_inputs_never_settle_what_the_model_answers(same: int) -> None:
    outcome, (reason,) = judge(report(source="drawn", same=same))
    assert outcome == "inconclusive" and "no captured inputs" in reason


def test_drawn_inputs_settle_what_it_costs() -> None:
    assert judge(report(source="drawn", p99_ms=900.0))[0] == "fail"


@pytest.mark.parametrize(
    ("compared", "inputs", "outcome"), [(FEW, 200, "pass"), (FEW - 1, 200, "inconclusive"), (5, 5, "pass")]
)
def test_few_inputs_say_little_unless_few_are_asked_for(compared: int, inputs: int, outcome: str) -> None:
    found = report(compared=compared, same=compared, inputs=compared, rules=TwinRules(inputs=inputs))
    assert judge(found)[0] == outcome


def test_memory_that_nobody_saw_is_not_kept_to() -> None:
    assert judge(report(peak_mb=None))[0] == "inconclusive"
