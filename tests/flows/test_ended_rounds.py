"""The flow of a round that cannot be trained or judged ends well: a record, a row in the ledger, an artifact."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import flows.loop
import flows.retrain
import tasks.train
from edgeloop.learning.rounds import RoundRecord, load_round
from edgeloop.samples.records import now
from edgeloop.samples.releases import blob_key
from flows.retrain import Stopwatch, learn
from tests.unit.learning.loop import Loop


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A service with a champion and new data, behind tasks that run as plain functions."""
    made = Loop(tmp_path)
    made.collect(range(120))
    assert made.round() is not None
    made.collect(range(1000, 1100))
    app = SimpleNamespace(
        store=made.store,
        tables=lambda _: made.tables,
        registry=made.registry,
        fleet=made.fleet,
        service=lambda _: made.service,
        settings=SimpleNamespace(home=tmp_path),
    )
    monkeypatch.setattr(tasks.train, "open_app", lambda: app)
    monkeypatch.setattr(tasks.train, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(flows.retrain, "get_run_logger", lambda: logging.getLogger("test"))
    for name in ("plan_retrain", "evaluate_candidate", "end_unjudged"):
        monkeypatch.setattr(flows.retrain, name, getattr(tasks.train, name).fn)
    monkeypatch.setattr(flows.retrain, "train_candidate", made.train)
    monkeypatch.setattr(flows.retrain, "register_candidate", lambda plan, c, e, reason: made.register(c))
    monkeypatch.setattr(flows.retrain, "promote_candidate", made.promote)
    return made


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    monkeypatch.setattr(tasks.train, "create_markdown_artifact", lambda **given: made.append(given["markdown"]))
    return made


def record() -> RoundRecord:
    return RoundRecord(id="run", service="rater", reason="test", at=now(), seconds={})


def champion_blob(loop: Loop) -> str:
    champion = loop.registry.champion("rater")
    assert champion is not None
    return blob_key(champion.layers["model"])


def ended(loop: Loop, artifacts: list[str], reason: str) -> None:
    """A round that ends inconclusive for ``reason``."""
    done = learn(record(), Stopwatch(), "auto", None)
    assert done.promotion is not None
    assert done.evaluation is not None
    assert (done.promotion.verdict, done.promotion.promoted, done.champion) == ("inconclusive", False, "1")
    assert reason in done.promotion.reason
    assert done.evaluation.damage == done.promotion.reason
    assert "end" in done.seconds
    assert loop.champion() == "1"
    assert loop.fleet.history("rater")[0]["reason"] == done.promotion.reason
    assert len(artifacts) == 1
    assert artifacts[0].startswith(f"## inconclusive: {done.promotion.reason}")


def test_a_damaged_champion_and_the_round_after_it_is_mended(loop: Loop, artifacts: list[str]) -> None:
    key = champion_blob(loop)
    whole = loop.store.get(key)
    loop.store.put(key, whole[:50])
    ended(loop, artifacts, "champion version 1 of rater cannot be loaded")
    loop.store.put(key, whole)
    done = learn(record(), Stopwatch(), "auto", None)
    assert done.promotion is not None
    assert done.promotion.verdict in {"pass", "fail"}
    assert done.evaluation is not None
    assert done.evaluation.damage is None


def test_a_champion_that_breaks_in_the_middle(
    loop: Loop, artifacts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_and_break(plan: Any) -> Any:
        made = loop.train(plan)
        loop.store.delete(champion_blob(loop))
        return made

    monkeypatch.setattr(flows.retrain, "train_candidate", train_and_break)
    ended(loop, artifacts, "is not at")


def test_data_that_a_trainer_refuses(loop: Loop, artifacts: list[str]) -> None:
    loop.service = loop.service.model_copy(
        update={"trainer": loop.service.trainer.model_copy(update={"pipeline": "no.such:pipeline"})}
    )
    ended(loop, artifacts, "trainer.pipeline 'no.such:pipeline' is not importable")


@pytest.mark.parametrize("damaged", [True, False])
def test_the_loop_releases_nothing_of_a_round_without_a_judgement(
    loop: Loop, artifacts: list[str], monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    delivered: list[RoundRecord] = []

    def deliver(done: RoundRecord, *_: Any) -> RoundRecord:
        delivered.append(done)
        assert load_round(loop.store, "rater", done.id).promotion == done.promotion, "written before it serves"
        return done

    nothing: Any = SimpleNamespace(samples=0, duplicates=0, labels=0, accepted=0, quarantined=0, rejected=0)
    monkeypatch.setattr(flows.loop, "open_app", lambda: SimpleNamespace(store=loop.store))
    monkeypatch.setattr(flows.loop, "collect", lambda _: SimpleNamespace(ingested=nothing, validated=nothing))
    monkeypatch.setattr(flows.loop, "new_record", lambda *_: record())
    monkeypatch.setattr(flows.loop, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(flows.loop, "deliver", deliver)
    if damaged:
        loop.store.delete(champion_blob(loop))
    flows.loop.one_round("rater", "test", 1)
    assert len(delivered) == (0 if damaged else 1)
