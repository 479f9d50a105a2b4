"""What is asked is what devices send, one after the other, and a time is bounded whatever the node does."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.clients.model_types import Answer
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Sample, digest
from edgeloop.samples.segments import to_row
from edgeloop.twin.asking import NoAnswer, Recalled, Sender, replay
from edgeloop.twin.traffic import recent_traffic
from tests.unit.samples.make import withheld
from tests.unit.twin.house import House


class Clock:
    """Goes on by a second with each answer."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def ask(self, payload: bytes) -> Answer:
        self.at += 1
        if payload == b"bad":
            raise NoAnswer("HTTP 500: no")
        return Answer(payload.decode(), None, None, None)


def test_answers_and_errors_are_told_apart() -> None:
    clock = Clock()
    found = replay(clock.ask, [b"a", b"bad", b"b"], 60, clock)
    assert (found.asked, found.seconds, found.errors) == (3, [1.0, 1.0], ["HTTP 500: no"])
    assert {name: answer.prediction for name, answer in found.answers.items()} == {
        digest(b"a"): "a",
        digest(b"b"): "b",
    }
    recalled = Recalled(found.answers, None)
    assert recalled.predict(b"a").prediction == "a"
    with pytest.raises(KeyError):
        recalled.predict(b"bad")


def test_a_slow_node_is_not_asked_for_ever() -> None:
    clock = Clock()
    assert replay(clock.ask, [b"a"] * 100, 10, clock).asked == 11


def test_nobody_there_is_no_answer() -> None:
    sender = Sender(1, "rater")
    assert not sender.is_ready()
    with pytest.raises(NoAnswer, match="the node did not answer"):
        sender.ask(b"{}")
    sender.close()


# --- traffic


def test_the_newest_inputs_are_replayed(tmp_path: Path) -> None:
    house = House(tmp_path)
    found = recent_traffic(house.tables, house.service, 5)
    assert found.source == "captured"
    assert found.payloads == [encode_features([n % 10, n / 10]) for n in range(39, 34, -1)]


def test_inputs_that_stayed_at_their_node_are_passed_over(tmp_path: Path) -> None:
    house = House(tmp_path, samples=4)
    rows = [to_row(withheld(n, [0.5], "none", "rater")) for n in range(50, 54)]
    house.tables.merge("samples", rows, Sample)
    found = recent_traffic(house.tables, house.service, 4)
    assert (found.source, len(found.payloads)) == ("captured", 4)


def test_without_samples_inputs_are_drawn(tmp_path: Path) -> None:
    house = House(tmp_path, samples=0)
    found = recent_traffic(house.tables, house.service, 7)
    assert (found.source, len(found.payloads)) == ("drawn", 7)
