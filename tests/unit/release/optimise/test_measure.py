"""The figures of a variant: agreement, clear inputs, times, tolerance, and what of them is kept."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from edgeloop.clients.model_types import Answer, Model
from edgeloop.release.optimise.measure import (
    MOST_TIMED,
    Agreement,
    OutOfTolerance,
    Recorded,
    Times,
    check_tolerance,
    clear_inputs,
    compare,
    machine,
    time_answers,
    times_of,
)
from edgeloop.release.optimise.measured import Figures, Measured
from edgeloop.samples.records import now
from edgeloop.store import FleetStore
from tests.unit.release.optimise.bars import profile


class Told:
    """A model that says what it is told to."""

    def __init__(self, answers: Mapping[bytes, Answer], labels: tuple[str, ...] | None = ("a", "b")) -> None:
        self.labels: tuple[str, ...] | None = labels
        self.backbone_digest: str | None = None
        self._answers = answers
        self.asked = 0

    def predict(self, payload: bytes) -> Answer:
        self.asked += 1
        return self._answers[payload]


def labels(*probabilities: float) -> Told:
    """Says ``a`` with these probabilities to the inputs 0, 1, and so on."""
    said = {
        b"%d" % n: Answer("a" if p >= 0.5 else "b", max(p, 1 - p), (p, 1 - p), None)
        for n, p in enumerate(probabilities)
    }
    return Told(said)


def numbers(*values: float) -> Told:
    return Told({b"%d" % n: Answer(repr(v), None, None, None) for n, v in enumerate(values)}, None)


def inputs(count: int) -> list[bytes]:
    return [b"%d" % n for n in range(count)]


def test_labels_agree_when_they_are_equal() -> None:
    assert compare(labels(0.9, 0.6, 0.2, 0.1), labels(0.6, 0.4, 0.3, 0.1), inputs(4)) == Agreement(4, 3)


def test_numbers_agree_within_a_share_of_their_spread() -> None:
    trained = numbers(0.0, 100.0)  # a spread of 50: half a unit is the same answer
    assert compare(trained, numbers(0.4, 100.0), inputs(2)) == Agreement(2, 2)
    assert compare(trained, numbers(0.6, 100.0), inputs(2)) == Agreement(2, 1)
    assert compare(numbers(3.0), numbers(3.0), inputs(1)).share == 1


def test_nothing_compared_is_no_disagreement() -> None:
    none: list[Model] = [labels(), numbers()]
    assert [compare(m, m, []).share for m in none] == [1.0, 1.0]


def test_probes_are_inputs_with_a_clear_answer() -> None:
    model = labels(0.55, 0.61, 0.5, 0.1, 0.9)
    assert clear_inputs(model, inputs(5), 3) == [b"1", b"3", b"4"]
    assert clear_inputs(model, inputs(5), 4) == [b"1", b"3", b"4", b"0"]
    assert clear_inputs(numbers(1, 2, 3), inputs(3), 2) == [b"0", b"1"]


def test_times_leave_the_first_answer_out() -> None:
    model = labels(*[0.9] * 200)
    ticks = (float(n * n) for n in itertools.count())
    timed = time_answers(model, inputs(3), lambda: next(ticks))
    assert model.asked == 4
    # Ticks 0 1 4 9 16 25: answers of 1, 5 and 9 seconds.
    assert timed is not None
    assert timed.p50_ms == 5000
    assert timed.p99_ms == pytest.approx(8920)
    assert time_answers(model, []) is None
    time_answers(model, inputs(200))
    assert model.asked == 4 + 1 + MOST_TIMED
    assert times_of(np.asarray([0.001])) == Times(1.0, 1.0)


def test_a_recorded_model_says_what_it_said_elsewhere() -> None:
    model = Recorded(("a", "b"), [b"x", b"y"], np.asarray([[0.25, 0.75], [1, 0]], np.float32))
    assert model.predict(b"x") == Answer("b", 0.75, (0.25, 0.75), None)
    assert model.predict(b"y").prediction == "a"
    with pytest.raises(KeyError):
        model.predict(b"z")


def test_tolerance_is_the_profiles() -> None:
    loose = profile(min_agreement=0.9, max_bytes=10)
    check_tolerance(loose, "looker", 10, Agreement(10, 9))
    with pytest.raises(OutOfTolerance, match=r"on 8 of 10 inputs \(80.00%\), min_agreement is 90.00%"):
        check_tolerance(loose, "looker", 10, Agreement(10, 8))
    with pytest.raises(OutOfTolerance, match="has 11 bytes, max_bytes is 10"):
        check_tolerance(loose, "looker", 11, Agreement(10, 10))
    check_tolerance(profile(), "looker", 10**12, Agreement(0, 0))


def test_figures_are_kept_once_per_release_profile_and_machine(tmp_path: Path) -> None:
    fleet = FleetStore(f"sqlite:///{tmp_path / 'fleet.db'}")
    measured = Measured(fleet.database)
    one = Figures(
        service="looker",
        release="sha256:1",
        profile="pi",
        machine=machine(),
        runtime="litert",
        precision="int8",
        size=5_000_000_000,
        agreement=0.99,
        compared=100,
        p50_ms=1.5,
        p99_ms=None,
        at=now(),
    )
    assert measured.record(one)
    assert not measured.record(one.model_copy(update={"p50_ms": 9.0}))
    assert measured.record(one.model_copy(update={"machine": "another"}))
    assert measured.record(one.model_copy(update={"release": "sha256:2"}))
    assert Measured(fleet.database).of_release("sha256:1") == [one, one.model_copy(update={"machine": "another"})]
    assert [f.release for f in measured.newest("looker", 2)] == ["sha256:2", "sha256:1"]
    assert measured.newest("other") == []
    fleet.close()
