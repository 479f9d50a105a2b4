"""Where two people answered one sample: how often they agreed, how sure that is, and where they did not."""

from __future__ import annotations

import pytest

from edgeloop.learning.labels.agreement import Contradiction, agreement, wilson
from edgeloop.samples.records import Label
from tests.unit.samples.make import label, sample


def given(number: int, text: str, by: str, seconds: float = 0) -> Label:
    return label(sample(number), text, seconds=seconds, by=by)


def test_kappa_is_agreement_beyond_chance() -> None:
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.7 agree, 0.5 by chance.
    answers = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    labels = [x for i, (a, b) in enumerate(answers) for x in (given(i, a, "ann"), given(i, b, "bob", 1))]
    found = agreement("rater", labels)
    [pair] = found.pairs
    assert (pair.people, pair.samples, pair.agreed) == (("ann", "bob"), 50, 35)
    assert pair.kappa == pytest.approx(0.4)
    assert pair.low < 0.7 < pair.high
    assert found.people == {"ann": 50, "bob": 50}
    assert len(found.contradictions) == 15


def test_a_contradiction_names_all_answers_and_which_counts() -> None:
    found = agreement("rater", [given(1, "x", "ann", 5), given(1, "y", "bob", 1)])
    [one] = found.contradictions
    assert one == Contradiction(sample_id=sample(1).sample_id, answers={"ann": "x", "bob": "y"}, counts="x")


def test_who_corrects_himself_is_no_contradiction() -> None:
    found = agreement("rater", [given(1, "x", "ann", 0), given(1, "y", "ann", 9), given(1, "y", "bob", 1)])
    assert found.corrected == 1
    assert found.contradictions == []
    assert found.pairs[0].agreed == 1


def test_only_people_count() -> None:
    found = agreement("rater", [given(1, "x", "ann"), label(sample(1), "y", "device", by="d")])
    assert (found.pairs, found.contradictions, found.people) == ([], [], {"ann": 1})


def test_one_label_only_has_no_kappa_and_numbers_have_none() -> None:
    [pair] = agreement("rater", [given(1, "x", "ann"), given(1, "x", "bob")]).pairs
    assert (pair.share, pair.kappa) == (1.0, None)
    [pair] = agreement("rater", [given(1, "5", "ann"), given(1, "5.0", "bob")], numbers=True).pairs
    assert (pair.agreed, pair.kappa) == (1, None)


def test_the_interval_is_wilsons() -> None:
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0


def test_the_newest_answer_counts_whoever_answered_first() -> None:
    found = agreement("rater", [given(1, "x", "ann", 0), given(1, "y", "bob", 1), given(1, "z", "ann", 2)])
    assert [(c.answers, c.counts) for c in found.contradictions] == [({"ann": "z", "bob": "y"}, "z")]
