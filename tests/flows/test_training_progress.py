"""Progress of a training is one artifact that follows it; the server's silence costs the artifact only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.testing.utilities import prefect_test_harness

import tasks.progress
import tasks.train
from edgeloop.bootstrap import App
from edgeloop.learning.progress import counted
from edgeloop.settings import Settings
from tasks.progress import PACE, Training
from tests.unit.learning.loop import Loop

T = TypeVar("T")


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def pages(key: str) -> list[Any]:
    """Every artifact of this name, the newest first."""
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.CREATED_DESC
        )


def shown(key: str) -> tuple[float, str]:
    page = pages(key)[0]
    assert page.type == "progress"
    return float(page.data), str(page.description)


def flow_of(body: Callable[[], T]) -> T:
    """What ``body`` returns, run as a flow; artifacts are made in runs only."""

    @flow
    def around() -> Any:
        return body()

    return cast("T", around())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def follow(lines: list[str]) -> list[tuple[float, str]]:
    """Says lines of a training; what the artifact shows before and after each."""
    seen = []
    with Training("follower", logging.getLogger("test"), Clock()) as say:
        seen.append(shown("training-follower"))
        for line in lines:
            say(line)
            seen.append(shown("training-follower"))
    return seen


def test_the_artifact_follows_what_counts(prefect: None) -> None:
    lines = ["features of 20 samples", counted("features", 20, 20), counted("epoch", 4, 4, "loss 0.5")]
    assert flow_of(lambda: follow(lines)) == [
        (0.0, "started"),
        (0.0, "started"),
        (100.0, "features 20/20"),
        (100.0, "epoch 4/4 loss 0.5"),
    ]
    assert shown("training-follower") == (100.0, "done")
    assert len(pages("training-follower")) == 1


def test_a_training_that_fails_says_where_it_was(prefect: None) -> None:
    def fail() -> None:
        with Training("faller", logging.getLogger("test")) as say:
            say(counted("epoch", 1, 4))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        flow_of(fail)
    assert shown("training-faller") == (25.0, "stopped: ZeroDivisionError")


class Sent:
    """Stands in for Prefect's two calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
        self.updates: list[tuple[float, str]] = []
        self.fails = fails
        monkeypatch.setattr(tasks.progress, "create_progress_artifact", lambda *_, **__: UUID(int=1))
        monkeypatch.setattr(tasks.progress, "update", self)

    def __call__(self, _artifact: object, percent: float, text: str) -> None:
        self.updates.append((percent, text))
        if self.fails:
            raise ConnectionError("gone")


def test_not_every_sample_is_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, clock = Sent(monkeypatch), Clock()
    with Training("quick", logging.getLogger("test"), clock) as say:
        for done in range(1, 1001):
            say(counted("features", done, 1000))
            clock.now += PACE / 250
    assert 4 <= len(sent.updates) <= 6
    assert sent.updates[-2:] == [(100.0, "features 1000/1000"), (100.0, "done")]
    percents = [percent for percent, _ in sent.updates]
    assert percents == sorted(percents)


def test_a_server_that_goes_away_costs_no_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sent = Sent(monkeypatch, fails=True)
    with caplog.at_level(logging.INFO), Training("lonely", logging.getLogger("test")) as say:
        for done in range(1, 4):
            say(counted("epoch", done, 3))
    assert len(sent.updates) == 1, "it is not asked again"
    assert [r.getMessage() for r in caplog.records] == [
        "epoch 1/3",
        "progress is not shown any more (ConnectionError): see this log",
        "epoch 2/3",
        "epoch 3/3",
    ]


def test_a_round_of_any_trainer_leaves_its_progress(
    prefect: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(tmp_path)
    loop.collect(range(60))
    plan = loop.plan()

    class Small:
        store, settings = loop.store, Settings(home=tmp_path / "home")

        def tables(self, _name: str) -> Any:
            return loop.tables

        def service(self, _name: str) -> Any:
            return loop.service

    monkeypatch.setattr(tasks.train, "open_app", lambda: cast("App", Small()))

    assert flow_of(lambda: tasks.train.train_candidate(plan).key)
    assert shown("training-rater") == (100.0, "done")
    assert not (tmp_path / "home").exists(), "a pipeline needs no scratch folder"
