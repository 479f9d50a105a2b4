"""A watch that is kept and taken up again between looks is the watch that never stopped, false alarms and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.learning.drift.record import MOST_POINTS
from edgeloop.learning.drift.watch import DriftWatch, Window

ALPHA, STREAMS, LOOKS = 0.05, 200, 60
MOST = STREAMS * (ALPHA + 3 * (ALPHA * (1 - ALPHA) / STREAMS) ** 0.5)


def again(watch: DriftWatch) -> DriftWatch:
    return DriftWatch.restore(*watch.keep())


def test_looks_with_a_restart_after_each_and_a_quantity_that_joins_raise_no_more_alarms_than_allowed() -> None:
    alarms = 0
    for seed in range(STREAMS):
        rng = np.random.default_rng([11, seed])
        watch = DriftWatch(Window(columns={"a": rng.normal(size=50)}), ALPHA, seed=seed, quantities=2)
        for number in range(LOOKS):
            watch = again(watch) if number % 5 == 0 else watch
            if number == 10:
                watch.join(Window(predictions=rng.normal(size=30)))
            answers = rng.normal(size=4) if number >= 10 else None
            watch.look(Window(columns={"a": rng.normal(size=4)}, predictions=answers))
        alarms += bool(watch.findings)
    assert 0 < alarms <= MOST, "no alarm at all would mean that the level is not used"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.booleans(), min_size=6, max_size=6))
def test_restarts_change_nothing(seed: int, restarts: list[bool]) -> None:
    rng = np.random.default_rng(seed)
    reference = Window(
        columns={"a": rng.normal(size=40)},
        embeddings=rng.normal(size=(60, 5)).astype(np.float32),
        predictions=list(rng.choice(["x", "y"], 40)),
        confidence=rng.uniform(size=30),
    )
    straight = DriftWatch(reference, 0.01, floor=0.8, labels=("x", "y"), seed=seed)
    broken = again(straight)
    for number, restart in enumerate(restarts):
        window = Window(
            columns={"a": rng.normal(loc=number, size=9)},
            embeddings=rng.normal(loc=number / 3, size=(9, 5)).astype(np.float32),
            predictions=list(rng.choice(["x", "z"], 9)),
            confidence=rng.uniform(size=9) / (1 + number),
            right=(rng.random(9) < 0.5).astype(float),
        )
        one, other = straight.look(window), broken.look(window)
        assert [f.quantity for f in one] == [f.quantity for f in other]
        broken = again(broken) if restart else broken
    assert straight.findings
    assert broken.courses == straight.courses
    assert [f.model_dump(exclude={"course"}) for f in broken.findings] == [
        f.model_dump(exclude={"course"}) for f in straight.findings
    ]


def test_a_quantity_that_joins_is_tested_at_the_level_of_the_others() -> None:
    rng = np.random.default_rng(0)
    watch = DriftWatch(Window(columns={"a": rng.normal(size=50)}), 0.01, quantities=4)
    watch.join(Window(confidence=rng.uniform(size=50)))
    assert [c.threshold for c in watch.courses] == [pytest.approx(np.log10(400))] * 2


def test_a_course_does_not_grow_for_ever_and_keeps_its_last_look() -> None:
    watch = DriftWatch(Window(confidence=np.linspace(0, 1, 50)))
    for _ in range(3 * MOST_POINTS):
        watch.look(Window(confidence=np.asarray([0.5])))
    points = watch.courses[0].points
    assert len(points) < MOST_POINTS
    assert points[-1].samples == 3 * MOST_POINTS
