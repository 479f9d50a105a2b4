"""Shifts are found within a stated number of samples, and a finding says what, how sure and since when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeloop.learning.drift.accuracy import AccuracyMonitor, NoFloor, Unaudited, accuracy_floor
from edgeloop.learning.drift.monitors import TwoSample
from edgeloop.learning.drift.plot import evidence_steps, plot_drift
from edgeloop.learning.drift.record import WrongLevel
from edgeloop.learning.drift.scores import BrokenReference, SmallReference, WrongWidth, of_embeddings, of_values
from edgeloop.learning.drift.watch import DriftWatch, NothingToWatch, Window

START = datetime(2026, 1, 1, tzinfo=UTC)


def shuffled(rows: Any, seed: int) -> Any:
    return rows[np.random.default_rng(seed).permutation(len(rows))]


def digits(shared: Path, name: str, seed: int) -> Any:
    with np.load(shared / "datasets" / "digits" / "digits28.npz") as parts:
        pictures = parts[f"X_{name}"]
    return shuffled(pictures, seed)[:2000].reshape(-1, 784).astype(np.float32) / 255


def wines(shared: Path, colour: str, seed: int) -> Any:
    path = shared / "datasets" / "wine" / f"winequality-{colour}.csv"
    return shuffled(np.loadtxt(path, delimiter=";", skiprows=1), seed)


@pytest.mark.parametrize(("name", "within"), [("usps", 250), ("optdigits", 60), ("semeion", 60)])
def test_digits_of_another_source_are_found(shared: Path, name: str, within: int) -> None:
    for seed in range(3):
        known = digits(shared, "mnist", seed)
        watch = DriftWatch(Window(embeddings=known[:1000]), alpha=0.01, seed=seed)
        assert not watch.look(Window(embeddings=known[1000:1300]))
        (found,) = watch.look(Window(embeddings=digits(shared, name, seed)[:within]))
        assert found.kind == "embeddings"
        assert 300 < found.samples <= 300 + within


def test_white_wine_after_red_is_found_by_its_columns(shared: Path) -> None:
    for seed in range(3):
        red, white = wines(shared, "red", seed), wines(shared, "white", seed)
        watch = DriftWatch(Window(columns=columns(red[:800])), alpha=0.01, seed=seed)
        assert not watch.look(Window(columns=columns(red[800:1200])))
        found = watch.look(Window(columns=columns(white[:60])))
        assert {"input 6", "input 3", "input 4"} <= {f.quantity for f in found}
        assert watch.findings[0].samples <= 400 + 40


def columns(rows: Any) -> dict[str, Any]:
    return {str(k): rows[:, k] for k in range(11)}


def test_a_finding_says_since_when() -> None:
    rng = np.random.default_rng(1)
    monitor = TwoSample("x", "inputs", of_values(rng.normal(size=500)), 0.001, 1)
    found = None
    for look in range(20):
        news = monitor.look(rng.normal(loc=2 if look >= 12 else 0, size=50), START + timedelta(hours=look))
        found = found or news
    assert found is not None
    assert abs(found.since - 600) <= 25
    assert found.since_at == START + timedelta(hours=12)
    assert 600 < found.samples <= 650
    assert found.statistic >= found.threshold == pytest.approx(3)
    assert "inputs drifted: x, evidence 10^3." in found.reason
    assert [p.samples for p in found.course.points] == list(range(50, 651, 50))
    assert len(monitor.course.points) == 20


def test_a_crossing_between_two_looks_is_drawn() -> None:
    """Evidence that fell again by the end of its look: without the crossing the curve would stay below the line."""
    rng = np.random.default_rng(0)
    monitor = TwoSample("x", "inputs", of_values(rng.normal(size=500)), 0.01, 1)
    found = monitor.look(np.concatenate([rng.normal(loc=3, size=11), rng.normal(scale=0.5, size=9)]))
    assert found is not None
    assert max(point.statistic for point in monitor.course.points) < found.threshold
    steps = evidence_steps(monitor.course, found)
    assert max(y for _, y in steps) == found.statistic >= found.threshold
    assert [x for x, _ in steps] == [0, found.samples, 20]
    assert evidence_steps(monitor.course, None) == [steps[0], steps[2]]


def test_a_spread_and_a_missing_value_are_drift_too() -> None:
    rng = np.random.default_rng(2)
    for changed in (rng.normal(size=150) * 3, np.where(rng.random(150) < 0.5, np.nan, rng.normal(size=150))):
        monitor = TwoSample("x", "inputs", of_values(rng.normal(size=300)), 0.01, 0)
        assert monitor.look(changed)


def test_a_column_that_never_changed_is_found_when_it_does() -> None:
    monitor = TwoSample("x", "inputs", of_values(np.full(200, 4.0)), 0.01, 0)
    assert not monitor.look(np.full(1000, 4.0))
    found = monitor.look(np.full(60, 4.1))
    assert found
    assert found.since in range(990, 1006)


def test_predictions_and_confidence_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    labels = ("cat", "dog", "owl")
    reference = Window(predictions=list(rng.choice(labels, 300)), confidence=rng.beta(8, 1, 300))
    watch = DriftWatch(reference, alpha=0.01, labels=labels)
    same = rng.beta(8, 1, 200)
    found = watch.look(Window(predictions=list(rng.choice(["cat", "fox"], 200)), confidence=same))
    assert [f.kind for f in found] == ["predictions"]
    assert [f.kind for f in watch.look(Window(confidence=rng.beta(2, 2, 200)))] == ["confidence"]
    assert [f.kind for f in watch.findings] == ["predictions", "confidence"]


def test_accuracy_that_fell_is_found_and_plotted_against_its_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    floor = accuracy_floor(950, 1000, tolerance=0.03, alpha=0.005)
    assert 0.89 < floor < 0.92
    watch = DriftWatch(Window(confidence=rng.uniform(size=50)), alpha=0.01, floor=floor)
    assert not watch.look(Window(right=(rng.random(300) < 0.95).astype(float)))
    for _ in range(10):
        watch.look(Window(right=(rng.random(20) < 0.65).astype(float), confidence=rng.uniform(size=20)))
    (found,) = watch.findings
    assert found.kind == "accuracy"
    assert 300 < found.samples <= 400
    band = watch.courses[1].bands[-1]
    assert band.samples == 500
    assert band.low < band.accuracy < band.high
    plot_drift(watch.courses, watch.findings, tmp_path / "drift.png")
    assert (tmp_path / "drift.png").read_bytes()[:4] == b"\x89PNG"


def test_accuracy_that_rose_is_no_finding() -> None:
    monitor = AccuracyMonitor("accuracy", 0.6, 0.05)
    assert not monitor.look(np.ones(5000))


@settings(max_examples=20, deadline=None)
@example([1, 25], 0)
@given(st.lists(st.integers(0, 25), min_size=1, max_size=8), st.integers(0, 99))
def test_how_a_stream_is_cut_into_looks_changes_nothing(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, stream = rng.normal(size=(80, 5)).astype(np.float32), rng.normal(loc=1, size=(sum(cuts), 5))
    whole, parts = (TwoSample("e", "embeddings", of_embeddings(reference, 0), 0.01, 0) for _ in range(2))
    at_once = whole.look(stream)
    for piece in np.split(stream, np.cumsum(cuts)[:-1]):
        parts.look(piece)
    assert parts.course.points[-1] == whole.course.points[-1]
    assert (at_once is None) == (parts.finding is None)
    if at_once and parts.finding:
        assert (at_once.samples, at_once.since) == (parts.finding.samples, parts.finding.since)


def test_what_only_rounding_leaves_over_is_not_measured() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    flat = np.concatenate([rows, rows @ np.ones((3, 5), np.float32)], axis=1)
    measured = of_embeddings(flat, 0)
    assert measured.reference.shape == (50, 3 + 2)
    assert not measured.reference[:, -1].any()
    assert (measured.scores(flat.astype(np.float64) + np.eye(8)[3])[:, -1] > 0.1).all()


def test_embeddings_that_are_no_numbers_are_drift() -> None:
    rng = np.random.default_rng(7)
    monitor = TwoSample("e", "embeddings", of_embeddings(rng.normal(size=(200, 9)).astype(np.float32), 0), 0.01, 0)
    assert monitor.look(np.where(rng.random((60, 9)) < 0.3, np.inf, np.nan))


def test_a_finding_can_not_be_lost_or_repeated() -> None:
    rng = np.random.default_rng(5)
    monitor = TwoSample("x", "inputs", of_values(rng.normal(size=200)), 0.01, 0)
    news = [monitor.look(np.concatenate([rng.normal(5, 1, 60), rng.normal(size=3000)])), monitor.look(np.zeros(0))]
    assert news[0] is not None
    assert news[1] is None
    assert monitor.course.points[-1].statistic < monitor.course.threshold
    assert monitor.finding == news[0]


def test_bad_input_is_named_and_tests_nothing() -> None:
    numbers = np.arange(50.0)
    with pytest.raises(SmallReference, match="with 19 ranked samples is too small, 20 are needed"):
        of_values(np.zeros(19))
    with pytest.raises(SmallReference, match="with 15 ranked"):
        of_embeddings(np.zeros((30, 4), np.float32), 0)
    with pytest.raises(BrokenReference, match="not finite"):
        of_embeddings(np.full((60, 4), np.nan, np.float32), 0)
    with pytest.raises(NothingToWatch, match="give one of them"):
        DriftWatch(Window())
    with pytest.raises(WrongLevel, match="alpha 0"):
        TwoSample("x", "inputs", of_values(numbers), 0, 0)
    with pytest.raises(NoFloor, match="3 right of 3 judged"):
        accuracy_floor(3, 3, tolerance=0.3, alpha=0.01)
    with pytest.raises(NoFloor, match=r"floor 1\.0"):
        AccuracyMonitor("accuracy", 1.0, 0.01)
    watch = DriftWatch(Window(columns={"a": numbers}, embeddings=np.eye(50, dtype=np.float32)), floor=0.5)
    for wrong, error in (
        (Window(columns={"a": numbers}, embeddings=np.eye(49, dtype=np.float32)), WrongWidth),
        (Window(columns={"a": numbers, "b": numbers}), WrongWidth),
        (Window(columns={"a": numbers}, right=np.asarray([0.5])), Unaudited),
    ):
        with pytest.raises(error):
            watch.look(wrong)
    assert all(c.points == () for c in watch.courses)


def test_an_empty_window_is_no_evidence(tmp_path: Path) -> None:
    watch = DriftWatch(Window(columns={"a": np.arange(50.0)}), floor=0.5)
    assert watch.look(Window(columns={"a": np.zeros(0)}, right=np.zeros(0))) == []
    assert watch.courses[0].points[-1].statistic == 0
    plot_drift([], [], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
    plot_drift(watch.courses, [], tmp_path / "some.png")
    assert (tmp_path / "some.png").exists()
