"""The core-set covers all it was given, in bounded memory, within eight times the best that hindsight could do."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeloop.edge.selection.duplicates import Late, LateHashes, LateVectors
from edgeloop.edge.selection.novelty import CoreSet, direction
from edgeloop.samples.selection import Duplicates


def unit(*values: float) -> NDArray[np.float32]:
    found = direction(np.array(values, np.float16))
    assert found is not None
    return found


def chords(points: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(points[:, None].astype(float) - centres[None].astype(float), axis=2))


def best_radius(points: NDArray[np.float32], size: int) -> float:
    """The least radius of ``size`` centres among the points: at most twice that of centres anywhere."""
    count = min(size, len(points))
    return min(float(chords(points, points[list(c)]).min(1).max()) for c in combinations(range(len(points)), count))


small = st.lists(
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: sum(x * x for x in v) > 0.01), min_size=1, max_size=9
)


@settings(max_examples=150, deadline=None)
@given(small, st.integers(2, 3))
def test_everything_added_is_within_eight_times_the_best_radius(vectors: list[tuple[float, ...]], size: int) -> None:
    points = np.array([unit(*v) for v in vectors])
    core = CoreSet(size, 3)
    for number, point in enumerate(points):
        core.add(point)
        assert 1 <= len(core) <= size
        reach = chords(points[: number + 1], core.centres).min(1).max()
        assert reach <= 2 * core.separation + 1e-3
        assert reach <= 8 * best_radius(points[: number + 1], size) + 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 16))
def test_centres_stay_apart_and_memory_bounded(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    core = CoreSet(size, 8)
    points = np.array([unit(*rng.normal(size=8)) for _ in range(300)])
    for point in points:
        core.add(point)
    gaps = chords(core.centres, core.centres)[~np.eye(len(core), dtype=bool)]
    assert len(core) <= size
    assert len(core) == 1 or gaps.min() >= core.separation - 1e-3
    assert chords(points, core.centres).min(1).max() <= 2 * core.separation + 1e-3


def wander(seed: int, length: int, step: float) -> list[NDArray[np.float32]]:
    """Unit vectors, each a step from the one before: merged one by one, centres would drift away from the first."""
    rng = np.random.default_rng(seed)
    place, heading, found = rng.normal(size=length), rng.normal(size=length), []
    place /= np.linalg.norm(place)
    for _ in range(200):
        heading = 0.9 * heading + 0.5 * rng.normal(size=length)
        place = place + step * heading / np.linalg.norm(heading)
        place /= np.linalg.norm(place)
        found.append(place.astype(np.float32))
    return found


@pytest.mark.parametrize(
    ("size", "length", "step", "seed"),
    [(3, 2, 0.02, 2), (3, 3, 0.05, 0), (4, 3, 0.05, 0), (4, 3, 0.05, 6), (4, 3, 0.05, 10), (5, 3, 0.02, 1)],
)
def test_a_wandering_stream_stays_covered(size: int, length: int, step: float, seed: int) -> None:
    points, core = np.array(wander(seed, length, step)), CoreSet(size, length)
    for number, point in enumerate(points):
        core.add(point)
        reach = chords(points[: number + 1], core.centres).min(1).max()
        assert reach <= 2 * core.separation + 1e-3


def test_clusters_are_found_whatever_comes_between_them() -> None:
    rng = np.random.default_rng(0)
    core = CoreSet(8, 16)
    places = np.eye(16)[:6]
    for number in range(2000):
        core.add(unit(*(places[number % 5] + rng.normal(0, 0.01, 16))))
    assert all(core.distance(unit(*place)) < 0.02 for place in places[:5])
    assert core.distance(unit(*places[5])) > 0.9


def test_nothing_is_as_far_as_can_be_from_an_empty_set() -> None:
    core = CoreSet(4, 2)
    assert core.distance(unit(1, 0)) == 2.0
    core.add(unit(1, 0))
    assert core.distance(unit(1, 0)) == pytest.approx(0, abs=1e-6)
    assert core.distance(unit(0, 1)) == pytest.approx(1)
    assert core.distance(unit(-1, 0)) == pytest.approx(2)


def test_the_same_again_takes_no_room_and_a_smaller_set_covers_too() -> None:
    core = CoreSet(3, 2)
    for vector in [unit(1, 0)] * 5 + [unit(0, 1)] * 5 + [unit(-1, 0)] * 5:
        core.add(vector)
    assert len(core) == 3
    fewer = core.resized(2)
    assert len(fewer) == 2
    assert len(core.resized(5)) == 3


@pytest.mark.parametrize("values", [[0, 0], [np.nan, 1], [np.inf, 1]])
def test_what_has_no_direction_is_no_vector(values: list[float]) -> None:
    assert direction(np.array(values, np.float16)) is None
    assert direction(None) is None
    assert direction(np.array([60_000, 60_000], np.float16)) == pytest.approx([0.7071, 0.7071], abs=1e-3)


# --- near-duplicates


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 2**64 - 1), st.integers(0, 64), st.integers(1, 9)
)
def test_hashes_are_compared_bit_by_bit_with_the_newest(hashes: list[int], asked: int, within: int, size: int) -> None:
    late = LateHashes(size)
    for one in hashes:
        late.add(one)
    near = any((one ^ asked).bit_count() <= within for one in hashes[-size:])
    assert late.has_near(asked, within) == near
    assert len(late) == min(size, len(hashes))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 200), st.sampled_from([1, 63, 64, 65, 150]), st.floats(0.001, 1))
def test_vectors_are_compared_with_the_newest(seed: int, count: int, size: int, within: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = [unit(*v) for v in rng.normal(size=(count, 4))]
    asked = unit(*rng.normal(size=4))
    late = LateVectors(size, 4)
    for one in vectors:
        late.add(one)
    distances = [1 - float(one @ asked) for one in vectors[-size:]]
    if all(abs(d - within) > 1e-5 for d in distances):
        assert late.has_near(asked, within) == any(d <= within for d in distances)


def test_an_equal_vector_is_near_at_no_distance_at_all() -> None:
    rng = np.random.default_rng(3)
    late = LateVectors(200, 1024)
    vectors = [unit(*v) for v in rng.random((100, 1024))]
    for one in vectors:
        late.add(one)
    assert all(late.has_near(one, 0.0) for one in vectors)
    assert not late.has_near(unit(*rng.random(1024)), 0.0)


def test_what_lacks_the_measure_is_no_duplicate_and_a_new_backbone_starts_anew() -> None:
    late = Late(Duplicates(by="embedding", within=0.1))
    late.add(None, None)
    assert not late.has_near(None, None)
    late.add(unit(1, 0), None)
    assert late.has_near(unit(1, 0.01), None)
    assert not late.has_near(unit(1, 0, 0), None)
    late.add(unit(1, 0, 0), None)
    assert late.has_near(unit(1, 0, 0), None)
    assert not late.has_near(unit(1, 0), None)
    hashes = Late(Duplicates(by="dhash", within=2))
    hashes.add(unit(1, 0), None)
    hashes.add(unit(1, 0), 0b1111)
    assert not hashes.has_near(unit(1, 0), None)
    assert hashes.has_near(None, 0b1100)
    assert not hashes.has_near(None, 0b1000)
