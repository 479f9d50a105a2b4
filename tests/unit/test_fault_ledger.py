"""What the fault test looks for: each thing that could go wrong is found, and nothing where all is right."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.edge_faults.ledger import Ledger, Told, some, wrong_answers, wrong_rows

FACTORS = {"sha256:good": 2.0, "3": 2.0}
GOOD = Told(10.0, "sha256:good", captured=True)


def row(name: str = "a", prediction: float = 10.0, model: str = "sha256:good") -> dict[str, Any]:
    return {"sample_id": name, "prediction": str(prediction), "model_digest": model}


def ledger(*told: Told) -> Ledger:
    made = Ledger()
    made.ask("a", 5.0)
    for one in told:
        made.tell("a", one)
    return made


def test_nothing_is_wrong_where_all_is_right() -> None:
    made = ledger(GOOD, Told(10.0, "3"))
    assert not list(wrong_answers(made.asked(), FACTORS))
    assert not list(wrong_rows(made.asked(), [row()], FACTORS))
    assert not made.unanswered() and not made.strange() and len(made) == 1


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (Told(10.0, "sha256:evil"), "may not be served"),
        (Told(10.5, "sha256:good"), "and sha256:good says 10.0"),
        (Told(None, "sha256:good"), "is None"),
        (Told(error="no"), "with an error: no"),
    ],
)
def test_a_wrong_answer_is_found(told: Told, says: str) -> None:
    (found,) = wrong_answers(ledger(GOOD, told).asked(), FACTORS)
    assert says in found


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "acknowledged and is not in the table"),
        ([row(), row()], "2 times in the table"),
        ([row(), row("b")], "never sent"),
        ([row(model="sha256:evil")], "may not be served"),
        ([row(prediction=11.0)], "the row a is 11.0"),
    ],
)
def test_a_wrong_table_is_found(rows: list[dict[str, Any]], says: str) -> None:
    (found,) = wrong_rows(ledger(GOOD).asked(), rows, FACTORS)
    assert says in found


def test_what_was_not_acknowledged_may_be_missing() -> None:
    assert not list(wrong_rows(ledger(Told(10.0, "sha256:good")).asked(), [], FACTORS))


def test_requests_without_an_answer_and_answers_without_a_request_are_found() -> None:
    made = ledger()
    assert made.unanswered() == ["a"]
    made.tell("b", GOOD)
    made.tell(None, GOOD)
    assert len(made.strange()) == 2


def test_many_violations_are_counted_and_some_are_shown() -> None:
    assert some(str(n) for n in range(7)) == ["0", "1", "2", "3", "4", "... and 2 more"]
    assert some(["x"]) == ["x"]
