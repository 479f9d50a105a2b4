"""The record of a run keeps what it is given and tells it in the same words everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgeloop.demo.result import (
    NONE,
    DemoResult,
    NotWritten,
    Verdict,
    headline,
    say_score,
    say_seconds,
    write_whole,
)
from tests.unit.demo.sample_run import run, turn


def test_json_comes_back_as_the_same_result() -> None:
    result = run()
    assert DemoResult.model_validate_json(result.model_dump_json()) == result


def test_keys_are_those_that_readers_of_the_json_rely_on() -> None:
    told = run().model_dump(mode="json")
    assert list(told) == [
        "service",
        "metric",
        "seconds",
        "simulated",
        "rounds",
        "fleet",
        "accuracy",
        "pages",
    ]
    assert set(told["rounds"][0]) == {
        "round",
        "title",
        "seen",
        "sent",
        "labelled",
        "wrong_labels",
        "quarantined",
        "candidate_accuracy",
        "champion_accuracy",
        "promoted",
        "reason",
        "version",
        "seconds",
    }
    assert set(told["fleet"][0]) == {"node", "ring", "serving", "wanted"}
    assert set(told["accuracy"]) == {"first", "last"}
    assert set(told["pages"]) == {"prefect", "mlflow", "report", "plot"}


@pytest.mark.parametrize("wrong", [{"candidate_accuracy": 1.2}, {"seen": -1}, {"candidate_accuracy": float("nan")}])
def test_impossible_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        run(rounds=[turn(0, None, 0.5, True) | wrong])


def test_misspelt_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="acuracy"):
        run(acuracy={"first": 0.1, "last": 0.2})


def test_verdict_and_standing_follow_from_the_round() -> None:
    rounds = run(rounds=[turn(0, None, 0.5, True), turn(1, 0.5, 0.4, False), turn(2, 0.5, None, False)]).rounds
    assert [one.verdict for one in rounds] == [Verdict.PROMOTED, Verdict.REFUSED, Verdict.NOTHING]
    assert [one.standing for one in rounds] == [0.5, 0.5, 0.5]


def test_headline_says_rise_and_refusal() -> None:
    assert headline(run()) == (
        "cats-dogs: accuracy rose from 78.0 % to 90.3 % over 4 rounds; the wrong labels of round 3 were refused."
    )


def test_headline_hides_no_bad_news() -> None:
    fooled = turn(1, 0.8, 0.5, True, wrong_labels=True)
    said = headline(run(rounds=[turn(0, None, 0.8, True), fooled], accuracy={"first": 0.8, "last": 0.5}))
    assert "fell from 80.0 % to 50.0 % over 1 round;" in said
    assert "wrong labels of round 1 were promoted by mistake" in said


def test_headline_of_a_standstill_and_of_r2() -> None:
    said = headline(run(metric="r2", accuracy={"first": 0.41, "last": 0.41}, rounds=[turn(0, None, 0.41, True)]))
    assert said == "cats-dogs: R² stayed at 0.410."


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0.0 s"),
        (9.96, "10 s"),
        (59.7, "1 min 0 s"),
        (192, "3 min 12 s"),
        (3599.6, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, said: str) -> None:
    assert say_seconds(seconds) == said


def test_scores_have_the_unit_of_their_metric() -> None:
    assert (say_score("accuracy", 0.9034), say_score("r2", -0.5), say_score("r2", None)) == (
        "90.3 %",
        "-0.500",
        NONE,
    )


def test_whole_file_or_none(tmp_path: Path) -> None:
    target = tmp_path / "new" / "page.html"
    write_whole(target, b"one")
    write_whole(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(target.parent.iterdir()) == [target]


def test_unwritable_place_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "taken"
    folder.mkdir()
    with pytest.raises(NotWritten, match="taken"):
        write_whole(folder, b"x")
    assert list(tmp_path.iterdir()) == [folder]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotWritten, match="choose another folder"):
        write_whole(tmp_path / "file" / "page.html", b"x")
