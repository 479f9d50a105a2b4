"""Inputs that make variants never judge them, and neither are of the gate or the test split."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.quality.validate import validate
from edgeloop.release.optimise.examples import LEAST, Examples, NoExamples, examples, half_of
from edgeloop.samples.dataset import Members, dataset_members, freeze
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, Sample
from edgeloop.samples.segments import to_row
from edgeloop.samples.splits import split_of
from edgeloop.samples.table import Tables
from tests.unit.samples.make import label, regressor, sample


class Kept:
    """A service ``rater`` whose sample n is the row (n mod 10, n)."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.tables = Tables("rater", self.store.table)

    def add(self, numbers: Iterable[int], groups: int = 1000) -> None:
        made = [sample(n, payload=encode_features([n % 10, n]), group=f"group-{n % groups}") for n in numbers]
        self.tables.merge("samples", [to_row(s) for s in made], Sample)
        self.tables.merge("labels", [to_row(label(s, "5")) for s in made], Label)
        validate(self.tables, regressor(), [])

    def examples(self, most: int = 200) -> Examples:
        dataset = freeze(self.store, self.tables, "rater")
        return examples(self.tables, "rater", dataset_members(self.store, self.tables, dataset), most)

    def groups(self, payloads: list[bytes], groups: int = 1000) -> set[str]:
        rows = self.tables.read("samples", ["payload", "group"])
        named = {r["payload"]: r["group"] for r in rows}
        return {named[p] for p in payloads}


def test_halves_are_of_the_pool_and_share_no_group() -> None:
    kept = Kept()
    kept.add(range(120), groups=40)
    found = kept.examples()
    calibration, judging = kept.groups(found.calibration), kept.groups(found.judging)
    assert calibration
    assert judging
    assert not calibration & judging
    assert {split_of(g, "rater") for g in calibration | judging} == {"pool"}
    pool = {f"group-{n}" for n in range(40) if split_of(f"group-{n}", "rater") == "pool"}
    assert calibration | judging == pool
    assert all(half_of(g, "rater") == "judging" for g in judging)


def test_a_list_of_members_that_is_wrong_brings_nothing_of_the_gate_in() -> None:
    import pyarrow as pa

    kept = Kept()
    kept.add(range(60))
    members = dataset_members(kept.store, kept.tables, freeze(kept.store, kept.tables, "rater"))

    def found(split: str) -> set[str]:
        column = pa.array([split] * len(members), type=pa.string())
        table = members.table.set_column(members.table.schema.get_field_index("split"), "split", column)
        halves = examples(kept.tables, "rater", Members(table))
        return {split_of(group, "rater") for group in kept.groups(halves.calibration + halves.judging)}

    assert found("gate") == set()
    assert found("pool") == {"pool"}


def test_what_calibrated_once_never_judges_later() -> None:
    kept = Kept()
    kept.add(range(60))
    first = kept.examples()
    kept.add(range(60, 200))
    later = kept.examples()
    assert not set(first.calibration) & set(later.judging)
    assert set(first.judging) <= set(later.judging)


def test_they_are_few_and_always_the_same() -> None:
    kept = Kept()
    kept.add(range(120))
    some, every = kept.examples(5), kept.examples()
    assert (len(some.calibration), len(some.judging)) == (5, 5)
    assert some.judging == every.judging[:5]
    assert some == kept.examples(5)


@pytest.mark.parametrize("what", ["calibrate", "judge"])
def test_too_few_are_said(what: str) -> None:
    enough, few = [b"x"] * LEAST, [b"x"] * (LEAST - 1)
    given = Examples(few, enough) if what == "calibrate" else Examples(enough, few)
    with pytest.raises(NoExamples, match=f"pool of rater has 9 raw inputs to {what} a variant with, 10 are needed"):
        given.check("rater", calibrates=True)
    Examples(few, enough).check("rater", calibrates=False)
