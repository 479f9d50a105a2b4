"""The picture has its size and shows what the rounds did."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeloop.demo.plot import RED, draw_loop, loop_figure, wrap
from edgeloop.demo.report import report_page
from edgeloop.demo.result import DemoResult
from edgeloop.errors import MissingExtra
from tests.unit.demo.sample_run import run, turn


def marks(result: DemoResult, kind: str) -> list[tuple[float, float]]:
    """Where the picture has marks of a kind, in rounds and in the metric's units."""
    axes = loop_figure(result).axes[0]
    drawn = [line for line in axes.lines if line.get_gid() == kind]
    return [(float(np.ravel(line.get_xdata())[0]), float(np.ravel(line.get_ydata())[0])) for line in drawn]


def words(result: DemoResult) -> str:
    """Everything written on the picture."""
    figure = loop_figure(result)
    return "\n".join(text.get_text() for text in [*figure.texts, *figure.axes[0].texts])


def reds(png: bytes) -> Any:
    """The pixels that have the colour of a refusal."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    colour = [int(RED[at : at + 2], 16) for at in (1, 3, 5)]
    return (pixels == colour).all(axis=2)


def test_file_has_the_size_and_is_what_was_returned(tmp_path: Path) -> None:
    png = draw_loop(run(), tmp_path / "loop.png")
    assert (tmp_path / "loop.png").read_bytes() == png
    assert Image.open(io.BytesIO(png)).size == (1600, 900)
    assert [path.name for path in tmp_path.iterdir()] == ["loop.png"]


def test_each_mark_stands_at_its_score() -> None:
    assert marks(run(), "refused") == [(3.0, 0.41)]
    assert [y for _, y in marks(run(), "before")] == [0.71, 0.80, 0.86, 0.84]
    assert [y for _, y in marks(run(), "after")] == [0.78, 0.846, 0.87, 0.86, 0.903]
    assert [y for _, y in marks(run(), "candidate")] == [0.78, 0.846, 0.87, 0.903]


def test_refusal_is_red_on_the_picture_and_gone_without_it(tmp_path: Path) -> None:
    calm = run(rounds=[turn(n, 0.7 + n / 50 if n else None, 0.72 + n / 50, True) for n in range(5)])
    refused, without = (reds(draw_loop(result, tmp_path / "loop.png")) for result in (run(), calm))
    assert without.sum() == 0
    columns = np.nonzero(refused[:800])[1]
    # Round 3 of 0..4 is the fourth fifth of the axes, which end 2 % before the right edge.
    assert columns.size > 500 and columns.min() > 960 and columns.max() < 1300


def test_picture_moves_with_the_refused_score(tmp_path: Path) -> None:
    better = [one.model_dump() | ({"candidate_accuracy": 0.6} if one.round == 3 else {}) for one in run().rounds]
    first = draw_loop(run(), tmp_path / "a.png")
    assert first == draw_loop(run(), tmp_path / "b.png")
    assert first != draw_loop(run(rounds=better), tmp_path / "b.png")
    assert marks(run(rounds=better), "refused") == [(3.0, 0.6)]


def test_words_say_what_is_simulated_and_why_it_was_refused() -> None:
    said = " ".join(words(run()).split())
    assert "the wrong labels of round 3 were refused" in said
    assert "Simulated: the devices and the drift." in said
    assert "41.0 % refused: worse than the champion by 45 points" in said
    assert "candidate, refused" in said
    assert "refused" not in words(run(rounds=[turn(0, None, 0.5, True)]))


def test_hopeless_candidate_does_not_flatten_the_steps() -> None:
    rounds = [turn(0, None, 0.30, True), turn(1, 0.30, -900.0, False), turn(2, 0.30, 0.40, True)]
    result = run(metric="r2", rounds=rounds)
    low, high = loop_figure(result).axes[0].get_ylim()
    assert high - low < 1.5
    assert "-900.000, off scale" in words(result)


@pytest.mark.parametrize("words_in", ["a few words that go on and on for ever", "W" * 90, "x", "$\\alpha_{$ 猫\n\t"])
def test_wrapped_words_fit_and_lose_nothing_without_a_sign(words_in: str) -> None:
    lines = wrap(words_in, 8, 100, most=2)
    assert 1 <= len(lines) <= 2
    shown = "".join("".join(lines).split())
    whole = "".join(words_in.split()).replace("猫", "\ufffd")
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtra, match=r"edgeloop\[cloud\]"):
        loop_figure(run())


TEXT = st.text(max_size=60)


def rounds_of(score: st.SearchStrategy[float]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lists of rounds as different as the record allows."""
    one = st.builds(
        turn,
        st.just(0),
        st.none() | score,
        st.none() | score,
        st.booleans(),
        title=TEXT,
        reason=TEXT,
        seen=st.integers(0, 10**9),
        wrong_labels=st.booleans(),
        version=st.none() | st.just("7"),
        seconds=st.dictionaries(TEXT, st.floats(0, 1e6), max_size=3),
    )
    return st.lists(one, min_size=1, max_size=12).map(
        lambda rounds: [one | {"round": number} for number, one in enumerate(rounds)]
    )


RUNS = st.one_of(
    st.tuples(st.just("accuracy"), st.floats(0, 1), rounds_of(st.floats(0, 1))),
    st.tuples(st.just("r2"), st.floats(-1e6, 1), rounds_of(st.floats(-1e6, 1))),
)


@settings(max_examples=25, deadline=None)
@given(RUNS, TEXT)
def test_any_result_is_drawn_and_written(given_run: tuple[str, float, list[dict[str, Any]]], simulated: str) -> None:
    metric, last, rounds = given_run
    accuracy = {"first": 0.5, "last": last}
    result = run(metric=metric, rounds=rounds, accuracy=accuracy, simulated=simulated)
    figure = loop_figure(result)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()
    assert np.isfinite([low, high]).all() and low < high
    assert all(low <= score <= high for kind in ("before", "after", "refused") for _, score in marks(result, kind))
    tables = 2 if any(one.seconds for one in result.rounds) else 1
    wrong = sum(one.wrong_labels for one in result.rounds)
    assert report_page(result, b"").count('<tr class="wrong"') == tables * wrong
