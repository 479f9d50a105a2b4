"""The parts of the retrain measurement that need no server: what is said of figures, and where pictures come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeloop.bench.retrain.full import full_time
from edgeloop.bench.retrain.pictures import NoPictures, Pictures
from edgeloop.bench.retrain.prepared import cache_features
from edgeloop.bench.retrain.result import Grown, Growth, RetrainBench, exponent, medians, retrain_text
from edgeloop.bench.retrain.world import NAME, bench_service
from edgeloop.clients.objects import MemoryStore
from edgeloop.learning.features import find_features
from edgeloop.samples.payloads import decode_image
from edgeloop.samples.records import digest
from tests.unit.learning.test_features import Counting

STAGES = {"plan": 1.0, "train": 2.0, "evaluate": 3.0, "register": 4.0}
HEAD = (10_000, 0.9, 5.0)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    images = np.random.default_rng(0).integers(0, 255, (12, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "digits28.npz", X_a=images[:8], y_a=np.arange(8), X_b=images[8:], y_b=np.arange(4))
    return Pictures(tmp_path)


def test_an_exponent_is_the_slope_of_logarithms() -> None:
    assert exponent([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert exponent([1, 2, 4, 8], [3, 3, 3, 3]) == pytest.approx(0)
    assert exponent([10, 100], [1, 100]) == pytest.approx(2)


def test_the_median_of_the_sums_is_not_the_sum_of_the_medians() -> None:
    runs = [{**STAGES, "plan": 1.0, "train": 9.0}, {**STAGES, "plan": 9.0, "train": 1.0}, {**STAGES, "plan": 1.0}]
    assert medians(runs)["plan"] == 1
    assert medians(runs)["total"] == 17


def test_some_epochs_on_some_images_are_a_lower_bound() -> None:
    full = full_time([(10.0, 0.95)], 500, HEAD)
    assert not full.reached, "with less data than the head had"
    assert (full.seconds, full.epoch_seconds, full.ratio) == (200.0, 200.0, 40.0)
    assert not full_time([(100.0, 0.5), (100.0, 0.6)], 10_000, HEAD).reached


def test_on_all_images_the_time_ends_with_the_epoch_that_is_as_good() -> None:
    full = full_time([(100.0, 0.5), (90.0, 0.91), (80.0, 0.95)], 10_000, HEAD)
    assert full.reached
    assert (full.epochs, full.seconds, full.ratio) == (2, 190.0, 38.0)


def test_the_text_says_lower_bound_where_it_is_one() -> None:
    spent = medians([STAGES])
    grown = Grown(history=100, seconds=spent, cpu_seconds=spent, store_reads={"plan": 3}, store_bytes={"plan": 10})
    result = RetrainBench(
        backbone="sha256:b",
        samples=10_000,
        new=5000,
        replay=5000,
        gate=3000,
        features=1024,
        feature_seconds=1.0,
        runs=[STAGES],
        seconds=medians([STAGES]),
        accuracy=0.9,
        full=full_time([(10.0, 0.3)], 500, HEAD),
        growth=Growth(
            replay=10,
            new=10,
            points=[grown],
            exponents=dict.fromkeys([*STAGES, "total"], 0.25),
        ),
    )
    text = retrain_text(result)
    assert "lower bound" in text
    assert "at least 40 times" in text
    assert "10.00" in text
    assert "0.25" in text
    sure = result.model_copy(update={"full": full_time([(10.0, 0.95)], 10_000, HEAD), "growth": None})
    assert "at least" not in retrain_text(sure)


def test_pictures_that_come_again_are_other_inputs_with_the_same_pixels(pictures: Pictures) -> None:
    some = pictures.take(0, 36)
    assert len({p.payload for p in some}) == 36
    for first, again in zip(some[:12], some[12:24], strict=True):
        assert first.label == again.label
        assert np.array_equal(decode_image(first.payload, 28), decode_image(again.payload, 28))
    assert [p.payload for p in pictures.take(5, 9)] == [p.payload for p in some[5:9]]


def test_features_of_scans_that_come_again_are_copied(pictures: Pictures) -> None:
    store, backbone = MemoryStore(), Counting()
    cache_features(store, backbone, pictures, 0, 30, lambda _: None)  # type: ignore[arg-type]
    assert backbone.calls == 12
    some = pictures.take(0, 30)
    kept = find_features(store, backbone, [digest(p.payload) for p in some])
    assert len(kept) == 30
    assert np.array_equal(kept[digest(some[1].payload)], kept[digest(some[25].payload)])
    cache_features(store, backbone, pictures, 0, 30, lambda _: None)  # type: ignore[arg-type]
    assert backbone.calls == 12


@pytest.mark.parametrize("content", [None, b"no archive"], ids=["absent", "damaged"])
def test_a_folder_without_digits_is_named(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "digits28.npz").write_bytes(content)
    with pytest.raises(NoPictures, match=str(tmp_path)):
        Pictures(tmp_path)


def test_the_service_that_is_measured_is_an_ordinary_one(tmp_path: Path) -> None:
    service = bench_service(tmp_path / "some.tflite", 224, 5000)
    assert (service.name, service.trainer.replay, service.metric) == (NAME, 5000, "accuracy")
