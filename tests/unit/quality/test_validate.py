"""Every sample is judged once, and what was set aside says by which rule."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from edgeloop.clients.objects import MemoryStore
from edgeloop.quality.validate import MalformedSuite, Validated, suite_of, validate
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Sample
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Expectation, Service, load_service
from edgeloop.samples.table import Tables
from tests.unit.samples.broken import Crash, Fuse, Guarded, crash_everywhere
from tests.unit.samples.make import looker, picture, plain_picture, regressor, sample

ROOT = Path(__file__).resolve().parent.parent.parent.parent
EXPECTATIONS = ROOT / "data" / "expectations"


@pytest.fixture(scope="module", autouse=True)
def great_expectations() -> None:
    """Imported with its warnings unheard: it imports modules of the standard library that are on their way out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations.expectations  # noqa: F401


def tables_with(samples: Sequence[Sample], service: str = "rater") -> Tables:
    tables = Tables(service, MemoryStore().table)
    tables.merge("samples", [to_row(s) for s in samples], Sample)
    return tables


def verdicts(tables: Tables) -> dict[str, tuple[bool, str | None]]:
    return {r["sample_id"]: (r["accepted"], r["reason"]) for r in tables.read("verdicts")}


def expect(kind: str, severity: str = "quarantine", **kwargs: Any) -> Expectation:
    return Expectation.model_validate({"type": kind, "kwargs": kwargs, "severity": severity})


def ranges(service: Service) -> list[Expectation]:
    return suite_of(service, EXPECTATIONS)


def test_no_samples_no_verdicts() -> None:
    tables = Tables("rater", MemoryStore().table)
    assert validate(tables, regressor(), ranges(regressor())) == Validated(service="rater")
    assert tables.version("verdicts") is None


def test_payload_and_range_are_judged_row_by_row() -> None:
    good = sample(1)
    short = sample(2, payload=b"[1]")
    out = sample(3, payload=encode_features([11, 0]))
    tables = tables_with([good, short, out])
    result = validate(tables, regressor(), ranges(regressor()))
    assert (result.checked, result.accepted, result.quarantined) == (3, 1, 2)
    by_range = "expect_column_values_to_be_between failed on a"
    by_payload = "row has 1 values: send 2 (a, b)"
    assert verdicts(tables) == {
        good.sample_id: (True, None),
        short.sample_id: (False, by_payload),
        out.sample_id: (False, by_range),
    }
    assert result.reasons == {by_payload: 1, by_range: 1}
    [check] = result.checks
    assert (check.column, check.passed, check.failing) == ("a", False, 1)


def test_what_is_set_aside_can_be_looked_at() -> None:
    short, out = sample(2, payload=b"[1]"), sample(3, payload=encode_features([11, 0]))
    tables = tables_with([short, out])
    validate(tables, regressor(), ranges(regressor()))
    rows = {json.loads(r["record"])["sample_id"]: r for r in tables.read("quarantine")}
    assert set(rows) == {short.sample_id, out.sample_id}
    for one in (short, out):
        record = json.loads(rows[one.sample_id]["record"])
        assert set(record) <= set(Sample.model_fields) | {"extra"}, "a field of the check's own got in"
        assert record["payload"]["bytes"] == len(one.payload)
        assert (rows[one.sample_id]["check"], rows[one.sample_id]["origin"]) == ("validation", "samples")


def test_judging_again_judges_nothing_twice() -> None:
    tables = tables_with([sample(1), sample(2, payload=b"[1]")])
    validate(tables, regressor(), ranges(regressor()))
    before = [tables.read(name) for name in ("verdicts", "quarantine")]
    assert validate(tables, regressor(), ranges(regressor())).checked == 0
    tables.merge("samples", [to_row(sample(3))], Sample)
    assert validate(tables, regressor(), ranges(regressor())).checked == 1
    assert len(tables.read("verdicts")) == 3
    assert tables.read("quarantine") == before[1]


def test_a_verdict_stands_even_if_the_rules_change() -> None:
    tables = tables_with([sample(1)])
    validate(tables, regressor(), [])
    strict = [expect("expect_column_values_to_be_between", column="a", min_value=5)]
    assert validate(tables, regressor(), strict).checked == 0
    assert verdicts(tables)[sample(1).sample_id] == (True, None)


def test_a_warning_is_reported_and_sets_nothing_aside() -> None:
    rule = expect("expect_column_values_to_be_between", "warning", column="a", max_value=5)
    tables = tables_with([sample(1), sample(7)])
    result = validate(tables, regressor(), [rule])
    assert result.accepted == 2
    [check] = result.checks
    assert (check.severity, check.passed, check.failing) == ("warning", False, 1)


def test_a_rule_about_the_batch_is_reported() -> None:
    rule = expect("expect_column_mean_to_be_between", "warning", column="a", min_value=5)
    [check] = validate(tables_with([sample(1)]), regressor(), [rule]).checks
    assert (check.passed, check.failing, check.column) == (False, 0, "a")


def test_checks_are_in_the_order_of_their_rules() -> None:
    """Great Expectations does not keep it: a check under another rule's name would accept the wrong rows."""
    suite = [
        expect("expect_column_values_to_be_between", column="b", max_value=0),
        expect("expect_column_values_to_not_be_null", column="device"),
        expect("expect_column_values_to_be_between", column="a", max_value=100),
        expect("expect_column_values_to_not_be_null", column="node"),
    ]
    result = validate(tables_with([sample(1), sample(2)]), regressor(), suite)
    assert [(c.column, c.passed, c.failing) for c in result.checks] == [
        ("b", False, 2),
        ("device", True, 0),
        ("a", True, 0),
        ("node", True, 0),
    ]
    assert result.quarantined == 2


def test_images_are_judged_by_what_they_show() -> None:
    service = looker(expectations="images")
    good, other = sample(1, "looker", picture(1), prediction="cat"), sample(2, "looker", picture(2), prediction="dog")
    grey = sample(3, "looker", plain_picture(128, (200, 200)), prediction="cat")
    cut = sample(4, "looker", picture(4)[:200], prediction="cat")
    tables = tables_with([good, other, grey, cut], "looker")
    result = validate(tables, service, suite_of(service, EXPECTATIONS))
    found = verdicts(tables)
    assert found[good.sample_id] == found[other.sample_id] == (True, None)
    assert found[grey.sample_id] == (False, "expect_column_values_to_be_between failed on contrast")
    accepted, reason = found[cut.sample_id]
    assert not accepted
    assert reason is not None
    assert reason.startswith("payload of 200 bytes is not a JPEG or PNG image")
    assert result.accepted == 2


def test_a_batch_in_which_every_payload_fails_is_judged_too() -> None:
    tables = tables_with([sample(1, payload=b"[1]"), sample(2, payload=b"")])
    result = validate(tables, regressor(), ranges(regressor()))
    assert (result.accepted, result.quarantined, result.checks) == (0, 2, [])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (expect("expect_column_values_to_be_nice", column="a"), "unknown expectation expect_column_values_to_be_nice"),
        (expect("expect_column_values_to_be_between", column="a", minimum=3), "with .*minimum"),
        (expect("expect_column_values_to_be_between", column="c", min_value=3), "on column 'c' does not run"),
        (expect("expect_column_mean_to_be_between", column="c", min_value=3), "on column 'c' does not run"),
        (expect("", column="a"), "expectation"),
        (expect("ExpectationSuite"), "expectation"),
        (expect("core", column="a"), "expectation"),
    ],
    ids=["type", "argument", "column", "column of batch rule", "empty", "no expectation", "module"],
)
def test_a_suite_that_cannot_run_says_why_and_judges_nothing(rule: Expectation, message: str) -> None:
    tables = tables_with([sample(1)])
    with pytest.raises(MalformedSuite, match=message):
        validate(tables, regressor(), [rule])
    assert tables.read("verdicts") == []


def test_crash_at_every_point_ends_as_if_there_had_been_none() -> None:
    samples = [sample(1), sample(2, payload=b"[1]"), sample(3, payload=b"[11, 0]")]

    def state(tables: Tables) -> Any:
        kept = [{k: v for k, v in r.items() if k != "at"} for r in tables.read("quarantine")]
        return verdicts(tables), sorted(json.dumps(r, sort_keys=True) for r in kept)

    whole = tables_with(samples)
    validate(whole, regressor(), ranges(regressor()))

    def run(fuse: Fuse) -> None:
        tables = tables_with(samples)
        try:
            validate(cast(Tables, Guarded(tables, fuse, "read", "merge")), regressor(), ranges(regressor()))
        except Crash:
            validate(tables, regressor(), ranges(regressor()))
        assert state(tables) == state(whole)

    assert crash_everywhere(run) == 5


def test_the_ranges_that_features_promise_come_first() -> None:
    service = regressor(expectations=[{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "b"}}])
    suite = suite_of(service, EXPECTATIONS)
    assert [rule.kwargs.get("column") for rule in suite] == ["a", "b"]
    assert suite[0].kwargs == {"column": "a", "min_value": 0.0, "max_value": 10.0}
    assert suite[0].severity == "quarantine"


@pytest.mark.parametrize("name", ["wine-rater", "digits", "cats-dogs"])
def test_the_suites_that_ship_can_be_read(name: str) -> None:
    service = load_service(name, [ROOT / "deployments" / "services"])
    assert suite_of(service, EXPECTATIONS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "does not parse"),
        (b"- 1", "does not parse"),
        (b"expectations:", "does not parse"),
        (b"expectations: [3]", "does not parse"),
        (b"expectations: [{type: x, colour: red}]", "does not parse"),
        (b"expectations: [", "does not parse"),
        (b"expectations: []  # \xe4", "does not parse|cannot be read"),
    ],
)
def test_a_suite_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(MalformedSuite, match=message) as caught:
        suite_of(regressor(expectations="mine"), tmp_path)
    assert str(tmp_path / "mine.yaml") in str(caught.value)
