"""A report can be read in a terminal."""

from __future__ import annotations

from edgeloop.twin.records import Load
from edgeloop.twin.show import load_text, text
from tests.unit.twin.house import profile, report


def test_the_terminal_has_the_word_the_reasons_and_the_figures() -> None:
    found = report(outcome="fail", reasons=["too slow"], notes=["ran elsewhere"], profile=profile(slowdown=4))
    shown = text(found)
    assert shown.startswith("rater version 1 on bench: FAIL\n  - too slow\n")
    assert "100.0% (200 of 200 captured inputs)" in shown
    assert "2.0 / 5.0 ms" in shown and "20.0 ms" in shown
    assert "120.0 MB" in shown and "at most 512 MB" in shown
    assert "holds 100.0, breaks at 150.0 requests/s" in shown
    assert "note: ran elsewhere" in shown


def test_what_was_not_reached_is_a_dash() -> None:
    nothing = {"inputs": 0, "compared": 0, "self_check": None, "p50_ms": None, "p99_ms": None, "peak_mb": None}
    shown = text(report(outcome="fail", reasons=["the node ended with 1"], load=None, **nothing))
    assert "not tried" in shown and "None" not in shown and "nan" not in shown


def test_a_limit_that_is_not_the_nodes_is_said() -> None:
    def said(limit: str, holds: float | None, breaks: float | None) -> str:
        return load_text(Load.model_validate({"holds_at": holds, "breaks_at": breaks, "limit": limit, "steps": []}))

    assert said("sender", 1, 2) == "holds 1.0, breaks at 2.0 requests/s (the sender's limit, the node may take more)"
    assert said("time", 5, None) == "holds 5.0 requests/s, then the time was over"
    assert said("time", None, None).startswith("too slow")
