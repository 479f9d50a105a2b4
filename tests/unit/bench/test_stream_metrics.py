"""The figures are what their formulas say, and the intervals are paired."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.bench.stream.bench import StreamOptions, bench_data
from edgeloop.bench.stream.data import with_previous
from edgeloop.bench.stream.methods import find_methods
from edgeloop.bench.stream.metrics import figures, interval, of_matrix, recovered
from edgeloop.bench.stream.plots import curve_svg, matrices_svg
from edgeloop.bench.stream.protocol import Run
from edgeloop.bench.stream.report import stream_html, stream_text
from edgeloop.bench.stream.result import StreamBench, same_as_last
from edgeloop.bench.stream.split import split_stream
from tests.unit.bench.made import made_stream, with_bucket

SPLIT = split_stream(made_stream(600), 0, 600)


def quiet(_: str) -> None:
    """Say nothing."""


def test_figures_of_a_matrix_worked_by_hand() -> None:
    matrix = np.array([[0.9, 0.5, 0.3], [0.7, 0.8, 0.4], [0.6, 0.9, 0.7]])[None, :, :, None]
    found = {name: float(value[0, 0]) for name, value in of_matrix(matrix, 0.1).items()}
    assert found == pytest.approx(
        {
            "near_future": (0.5 + 0.4) / 2,
            "final": (0.6 + 0.9 + 0.7) / 3,
            "bwt": ((0.6 - 0.9) + (0.9 - 0.8)) / 2,
            "fwt": (0.5 + 0.4) / 2 - 0.1,
            "forgetting": ((0.9 - 0.6) + (0.8 - 0.9)) / 2,
        }
    )


def test_the_recovered_fraction_needs_something_to_recover() -> None:
    names = ["frozen", "ours", "joint"]
    found = recovered(np.array([[0.5, 0.8, 0.9]]), names)
    assert found is not None
    assert found[0].tolist() == pytest.approx([0, 0.75, 1])
    assert recovered(np.array([[0.5, 0.8, 0.51]]), names) is None


def random_run(seed: int, share: float) -> Run:
    """Right with probability ``share``, whatever is asked."""
    rng = np.random.default_rng(seed)
    rows = [len(b.test.truth) for b in SPLIT.buckets]
    return Run(
        "any",
        0,
        prequential=[rng.random(len(b.pool.truth)) < share for b in SPLIT.buckets[1:]],
        deployed=[[rng.random(n) < share for n in rows] for _ in rows],
    )


def test_methods_are_compared_on_the_same_draws() -> None:
    one, other = random_run(0, 0.8), random_run(1, 0.8)
    drawn = figures([SPLIT] * 2, [[one, one, other], [one, one, other]]).values["final"]
    assert np.array_equal(drawn[:, 0], drawn[:, 1])
    value, low, high = interval(drawn[:, 0])
    assert low < value < high
    assert (drawn[1:, 0] != drawn[1:, 2]).any()


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(60):
        _, low, high = interval(figures([SPLIT], [[random_run(seed, 0.8)]]).values["final"][:, 0])
        covered += low <= 0.8 <= high
    assert 51 <= covered <= 60


def test_same_as_last_reads_the_label_before() -> None:
    stream = made_stream(600)
    truth = np.repeat(np.arange(3), 200)
    for number in range(3):
        stream = with_bucket(stream, number, truth=truth, previous=with_previous(truth))
    found = same_as_last([split_stream(stream, 0, 600)])
    assert found is not None
    assert found.value > 0.97
    assert same_as_last([SPLIT]) is None


@pytest.fixture(scope="module")
def result() -> StreamBench:
    return bench_data(made_stream(600), find_methods(["sedna", "ours"]), StreamOptions(seeds=2), quiet)


def test_the_result_says_what_was_run_and_survives_json(result: StreamBench) -> None:
    assert [m.method for m in result.methods] == ["frozen", "sedna", "ours", "joint"]
    assert StreamBench.model_validate_json(result.model_dump_json()) == result
    frozen, _, ours, joint = result.methods
    assert frozen.labels == frozen.bytes == frozen.promotions == 0
    assert frozen.matrix[0] == frozen.matrix[-1]
    assert joint.figures["recovered"].value == pytest.approx(1)
    assert ours.over_sedna["final"].low <= ours.over_sedna["final"].value <= ours.over_sedna["final"].high
    assert np.mean(ours.matrix[-1]) == pytest.approx(ours.figures["final"].value)


def test_the_table_has_every_method_and_says_what_ours_spends(result: StreamBench) -> None:
    text = stream_text(result)
    for method in result.methods:
        assert sum(line.startswith(method.method) for line in text.splitlines()) >= 2
        assert f"{method.figures['final'].value:.3f} [" in text
    assert "ours over sedna, final ACC: " in text
    assert "ours at no more labels than sedna: " in text
    assert "recovered 0.80: " in text


def test_the_page_needs_nothing_beside_it_and_is_the_same_again(result: StreamBench) -> None:
    page = stream_html(result)
    assert page.count("<svg") == 2
    assert "<script" not in page
    assert "<link" not in page
    assert "src=" not in page
    assert curve_svg(result) == curve_svg(result)
    assert "selftrain" not in matrices_svg(result)
