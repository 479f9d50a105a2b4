"""Services whose rollouts hold, move, and were taken back, as the machine left them in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from edgeloop.fleet.rollouts.state_store import StateStore
from edgeloop.fleet.rollouts.states import RingView, View
from edgeloop.promotion.kept import Promotions
from edgeloop.release.optimise.measured import Figures, Measured
from edgeloop.samples.records import now
from edgeloop.samples.strategy import Strategy
from edgeloop.store import FleetStore
from tests.unit.web.fleet import DIGEST, OTHER

SERVICES = ("cats-dogs", "digits", "wine-rater")


def ring(number: int, state: str, *, nodes: int, online: int, switched: int, failed: int = 0, **more: Any) -> RingView:
    counts = {"nodes": nodes, "online": online, "switched": switched, "failed": failed}
    batch = 0 if state in {"waiting", "staging", "staged"} else 1
    return RingView(**{"ring": number, "state": state, "stands": OTHER, "batch": batch, **counts, **more})


def view(service: str, rings: Sequence[RingView], **values: Any) -> View:
    base = {"rollout": 0, "release": DIGEST, "former": OTHER, "salt": "", "who": "gate", "strategy": Strategy()}
    return View(**{**base, "service": service, "rings": tuple(rings), "why": "better on both slices", **values})


def views(at: datetime) -> list[View]:
    """One on hold, one that moves, one that was taken back."""
    batches = Strategy.model_validate({"batches": [10, 0.5], "rings": {1: {"approve": True}}})
    holding = [
        ring(0, "passed", nodes=40, online=40, switched=40),
        ring(1, "switching", nodes=1000, online=961, switched=702, approved_by=("bob",), below="8" * 16),
        ring(2, "waiting", nodes=8960, online=0, switched=0),
    ]
    moving = [
        ring(0, "soaking", nodes=40, online=39, switched=39),
        ring(1, "waiting", nodes=3, online=0, switched=0),
    ]
    failed = [
        ring(0, "failed", nodes=2, online=2, switched=0, failed=1),
        ring(1, "waiting", nodes=1, online=0, switched=0),
    ]
    until = at + timedelta(minutes=4)
    return [
        view("cats-dogs", holding, state="holding", waits="person", strategy=batches,
             reason="ring 1: 702 of 961 online nodes serve it (quorum 90.0%)"),
        view("digits", moving, state="moving", waits="soak", next_look=until, reason="ring 0 soaks: 39 of 39 serve it"),
        view("wine-rater", failed, state="reverted", cause="ring 0: audited accuracy is 61.0 % of 200, before 93.5 %",
             reason="ring 0: audited accuracy is 61.0 % of 200, before 93.5 %"),
    ]  # fmt: skip


def fill(fleet: FleetStore) -> None:
    """Write all of it, with what people said and what was measured."""
    store, at = StateStore(fleet.database), now()
    for one in views(at):
        fleet.add_release(one.service, "7", OTHER)
        fleet.add_release(one.service, "8", DIGEST)
        promoted(fleet, one.service)
        store.begin(one, at)
    for profile, precision, p99 in (("generic-amd64", "float32", 6.31), ("raspberry-pi-4", "int8", None)):
        figures = Figures(
            service="digits", release=DIGEST, profile=profile, machine="here", runtime="litert", precision=precision,
            size=88_331_264, agreement=0.9985, compared=1000, p50_ms=p99 and p99 / 2, p99_ms=p99, at=at,
        )  # fmt: skip
        Measured(fleet.database).record(figures)


def promoted(fleet: FleetStore, service: str) -> None:
    """Its release was approved by two people."""
    kept = Promotions(fleet.database)
    kept.begin(service, "8", "7", "gate")
    promotion = kept.current(service)
    assert promotion is not None
    kept.note(promotion, release=DIGEST)
    for who in ("ann", "bob"):
        kept.say(promotion, who, "looked at the report of the twin")
