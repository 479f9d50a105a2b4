"""What waits for a person is on the page, with what that person needs to know and what to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeloop.clients.objects import MemoryStore
from edgeloop.release.optimise.measured import Figures, Measured
from edgeloop.samples.records import now
from edgeloop.twin.kept import Rehearsals, keep
from edgeloop.web.approvals import waiting
from tests.unit.promotion.world import World, release_of
from tests.unit.twin.house import profile, report
from tests.unit.web.browser import Browser
from tests.unit.web.fleet import healthy
from tests.unit.web.test_page import HOSTILE, shown


def test_nothing_waits_where_everything_is_released(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert waiting(world.fleet, MemoryStore(), ["rater"]) == []
    world.out("1")
    assert waiting(world.fleet, MemoryStore(), ["rater"]) == []


def test_what_waits_is_shown_with_its_figures(tmp_path: Path) -> None:
    world = World(tmp_path, approvals={"second": True})
    world.fleet.record("rater", "gate", "k", verdict="pass", reason="better", version="1", dataset="d", who="gate")
    world.set("1")
    figures = Figures(
        service="rater", release=release_of("1"), profile="generic-arm64", machine="here", runtime="litert",
        precision="int8", size=4096, agreement=0.995, compared=200, p50_ms=1.0, p99_ms=2.5, at=now(),
    )  # fmt: skip
    Measured(world.fleet.database).record(figures)
    found = report(release=release_of("1"), profile=profile("generic-arm64"), notes=["ran on amd64"])
    store = MemoryStore()
    keep(store, Rehearsals(world.fleet.database), found)
    (one,) = waiting(world.fleet, store, ["rater"])
    assert (one["service"], one["version"], one["state"], one["who"]) == ("rater", "1", "waiting", "gate")
    assert one["gate"] == {"verdict": "pass", "reason": "better"}
    assert one["commands"][0] == "edgeloop release approve rater --version 1"

    def look() -> dict[str, Any]:
        return {**healthy(), "promotions": [one]}

    text = shown(look)
    assert "rater waiting version 1 Waits for a second person: edgeloop release approve rater --version 1" in text
    assert "The gate said pass: better Approved by nobody Variants generic-arm64: int8, agrees on 99.5 %" in text
    assert "4 KiB, p99 2.5 ms The twin said generic-arm64: pass, breaks at 150.0 requests/s To type edgeloop" in text
    assert "Twin on generic-arm64: pass ran on amd64 Looked at Found Asked for self-check passes passes" in text
    assert "errors 0 of 200 at most 0.0% agreement 100.0% (200 of 200 captured inputs) at least 98.0%" in text
    assert "p99 on generic-arm64 5.0 ms at most 500 ms memory 120.0 MB at most 512 MB" in text


def test_a_report_that_is_lost_leaves_the_outcome(tmp_path: Path) -> None:
    world = World(tmp_path, approvals={"second": True})
    world.set("1")
    lost = keep(MemoryStore(), Rehearsals(world.fleet.database), report(release=release_of("1")))
    (one,) = waiting(world.fleet, MemoryStore(), ["rater"])
    text = shown(lambda: {**healthy(), "promotions": [one]})
    assert f"Twin on bench: pass twin report {lost.report} is not in" in text


def test_what_people_write_is_text(tmp_path: Path) -> None:
    world = World(tmp_path, approvals={"second": True})
    world.set("1")
    hostile_report = report(release=release_of("1"), outcome="fail", reasons=[HOSTILE], notes=[HOSTILE])
    store = MemoryStore()
    keep(store, Rehearsals(world.fleet.database), hostile_report)
    (one,) = waiting(world.fleet, store, ["rater"])
    assert one["twin"][0]["reasons"] == [HOSTILE]
    hostile = {**one, "reason": HOSTILE, "who": HOSTILE, "version": HOSTILE}
    answer = Browser(lambda: {**healthy(), "promotions": [hostile]}).get("/")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "8641969" not in answer.text


def test_a_section_without_anything_in_it_is_not_shown() -> None:
    assert "Before the fleet" not in shown(healthy)
    assert "Before the fleet Not known" in shown(lambda: {**healthy(), "unknown": ["promotions"]})
