from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.models import Answer
from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.clock import NodeClock
from edgeloop.edge.keeping import canonical_payload
from edgeloop.edge.results import LONGEST_ERROR, MalformedTime, parse_time
from edgeloop.edge.runtime import TRIAL, WINDOW, Loaded
from edgeloop.edge.spool.spool import Limits
from edgeloop.samples.payloads import UndecodablePayload
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Label, Sample, digest
from edgeloop.samples.service import Feature, ImageInput, NodeConfig
from tests.unit.edge.fakes import FEATURES, SERVICE, Bench, FakeModel, config

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def captured(bench: Bench) -> list[Sample]:
    store = MemoryStore()
    bench.spool.cut(everything=True)
    bench.spool.upload(store)
    return [s for info in store.list("captures") for s in read_segment(store.get(info.key), Sample)[0]]


def test_an_input_is_answered_and_captured_with_all_that_belongs_to_it(bench: Bench) -> None:
    result = bench.gateway.handle(SERVICE, "d1", b'{"b": 2, "a": 0.25}', AT)
    assert set(result.to_json()) == {
        *("sample_id", "service", "device", "prediction", "confidence", "captured", "selected_by", "model"),
        *("node", "at"),
    }
    (kept,) = captured(bench)
    assert kept.sample_id == result.sample_id and kept.captured_at == AT
    assert (kept.payload, kept.group) == (b"[0.25,2.0]", digest(b"[0.25,2.0]"))
    assert kept.embedding == b"\x00\x3e\x00\xc0" and kept.backbone_digest == "sha256:b"
    assert (kept.prediction, kept.confidence, kept.model_digest) == ("yes", 0.25, "sha256:r1")
    assert (kept.selected_by, kept.selection_probability) == ("audit", 1.0)


def test_the_same_input_again_gets_the_same_result_and_counts_once(bench: Bench) -> None:
    first = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    again = bench.gateway.handle(SERVICE, "d1", b"[0.5,1.0]", AT)
    later = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT + timedelta(microseconds=1))
    assert first == again and later.sample_id != first.sample_id
    assert bench.stats.services[SERVICE].outcomes["ok"] == 2
    assert len(captured(bench)) == 2


def test_an_input_sent_while_it_is_in_work_waits_for_the_one_answer(bench: Bench) -> None:
    started, go = threading.Event(), threading.Event()
    plain = bench.model.predict

    def slow(payload: bytes) -> Answer:
        started.set()
        go.wait(10)
        return plain(payload)

    bench.model.predict = slow  # type: ignore[method-assign]
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    go.set()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(set(results)) == 1
    assert bench.model.calls == 1 and len(captured(bench)) == 1


@pytest.mark.parametrize("uploaded", [False, True])
def test_after_a_restart_a_captured_input_is_answered_but_not_counted_or_captured_again(
    bench: Bench, uploaded: bool
) -> None:
    first = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    if uploaded:
        assert len(captured(bench)) == 1
    bench.close()
    bench.start()
    again = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert (again.captured, again.selected_by, again.sample_id) == (True, "audit", first.sample_id)
    assert bench.stats.services[SERVICE].outcomes["ok"] == 0
    assert len(captured(bench)) == (0 if uploaded else 1)


def test_after_a_restart_the_choice_is_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path, audit=0.5)
    times = [AT + timedelta(seconds=n) for n in range(40)]
    first = [bench.gateway.handle(SERVICE, "d1", b"[0.9,1]", at) for at in times]
    bench.close()
    bench.start()
    again = [bench.gateway.handle(SERVICE, "d1", b"[0.9,1]", at) for at in times]
    assert [r.selected_by for r in again] == [r.selected_by for r in first]
    assert [r.captured for r in again] == [r.captured for r in first]
    assert 5 < sum(r.captured for r in first) < 35
    assert len(captured(bench)) == sum(r.captured for r in first)
    bench.close()


def reordered(bench: Bench) -> Loaded:
    """A release that takes the same features in another order."""
    known = bench.config.model_copy(update={"features": FEATURES[::-1]})
    return Loaded("sha256:r2", "2", known, FakeModel())


def test_a_row_is_answered_by_the_release_that_it_was_put_in_order_for(bench: Bench) -> None:
    plain = bench.runtime.predict

    def switch_then_predict(*given: Any) -> Any:
        bench.runtime.switch(SERVICE, reordered(bench))
        return plain(*given)

    bench.runtime.predict = switch_then_predict  # type: ignore[assignment,method-assign]
    row = b'{"a": 0.25, "b": 0.75}'
    results = [bench.gateway.handle(SERVICE, "d1", row, AT + timedelta(seconds=n)) for n in range(2)]
    assert [(r.model, r.confidence) for r in results] == [("sha256:r1", 0.25), ("sha256:r2", 0.75)]
    assert [(s.model_digest, s.payload) for s in captured(bench)] == [
        ("sha256:r1", b"[0.25,0.75]"),
        ("sha256:r2", b"[0.75,0.25]"),
    ]


def test_a_row_in_an_order_that_has_changed_is_not_answered(bench: Bench) -> None:
    assert bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT, ["a", "b"]).outcome == "ok"
    bench.runtime.switch(SERVICE, reordered(bench))
    later = AT + timedelta(seconds=1)
    refused = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", later, ["a", "b"])
    assert refused.outcome == "not_ready" and "send it again" in str(refused.error)
    assert bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", later, ["b", "a"]).outcome == "ok"


def test_a_bad_payload_is_an_error_with_a_sample_id(bench: Bench) -> None:
    result = bench.gateway.handle(SERVICE, "d1", b"[1]", AT)
    assert set(result.to_json()) == {"error", "sample_id", "service", "device", "node", "at"}
    assert "row has 1 values" in str(result.error) and result.sample_id
    assert bench.stats.services[SERVICE].outcomes == {"bad_input": 1}
    assert bench.gateway.handle("other", "d1", b"[1]").error is not None


@pytest.mark.parametrize(
    "payload", [b"[" * 100_000, b"[1e400, 1]", b"[1e300, 1]", b"[%s, 1]" % (b"9" * 400), b"\xff\xfe", b"[NaN,1]"]
)
def test_a_nasty_payload_is_an_error_and_no_more(bench: Bench, payload: bytes) -> None:
    assert bench.gateway.handle(SERVICE, "d1", payload, AT).outcome == "bad_input"
    assert bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT).outcome == "ok"


def test_whatever_an_error_quotes_it_is_short(bench: Bench) -> None:
    wide = [Feature(name=f"feature {n}") for n in range(1000)]
    known = bench.config.model_copy(update={"features": wide, "labels": [f"label {n}" for n in range(1000)]})
    bench.runtime.switch(SERVICE, Loaded("sha256:r2", "2", known, bench.model))
    named = bench.gateway.feedback(SERVICE, "d1", b'{"sample_id": "%s", "label": "none"}' % (b"ab" * 32))
    row = json.dumps({"\ud800" * 99 + str(n): n for n in range(999)}).encode()
    told = [named, bench.gateway.handle(SERVICE, "d1", row), bench.gateway.reject(SERVICE, "d1", "\ud800" * 9999)]
    assert [len(str(result and result.error)) for result in told] == [LONGEST_ERROR] * 3
    assert max(len(result.to_bytes()) for result in told if result) < 8 * LONGEST_ERROR


def test_a_model_failure_is_forgotten_so_that_a_resend_can_succeed(bench: Bench) -> None:
    bench.model.broken = True
    assert bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT).outcome == "model_error"
    bench.model.broken = False
    assert bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT).outcome == "ok"


def test_an_answer_of_nan_is_a_failure_of_the_model_and_nothing_is_kept_of_it(bench: Bench) -> None:
    nan = float("nan")
    bench.model.predict = lambda payload: Answer("yes", nan, (nan, nan), None)  # type: ignore[method-assign]
    result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert result.outcome == "model_error" and "not finite" in str(result.error)
    assert bench.stats.services[SERVICE].outcomes == {"model_error": 1}
    assert bench.spool.samples == 0


def test_with_a_full_spool_answers_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limits=Limits(spool_bytes=10))
    result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert (result.prediction, result.captured, result.selected_by) == ("yes", False, "audit")
    assert bench.stats.services[SERVICE].not_captured == 1 and bench.spool.refused == 1
    bench.close()


def test_an_unsure_answer_is_captured_for_it_with_probability_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, audit=1e-9, below=0.6)
    assert bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT).selected_by == "threshold"
    assert bench.gateway.handle(SERVICE, "d1", b"[0.7,1]", AT).selected_by is None
    (kept,) = captured(bench)
    assert kept.selection_probability == 1.0
    bench.close()


def test_a_captured_sample_carries_with_what_probability_it_was_sent(tmp_path: Path) -> None:
    """Each row of the table in docs/explanation/selection.md, as the cloud reads it."""
    bench = Bench(tmp_path, audit=0.3, below=0.6)
    sent = [b"[0.9,1]", b"[0.5,1]"] * 30
    for second, row in enumerate(sent):
        bench.gateway.handle(SERVICE, "d1", row, AT + timedelta(seconds=second))
    kept = captured(bench)
    sure = [s for s in kept if (s.confidence or 0) > 0.6]
    unsure = [s for s in kept if s not in sure]
    assert 0 < len(sure) < 30, "only the audited ones are sent"
    assert {(s.selected_by, s.selection_probability) for s in sure} == {("audit", 0.3)}
    assert len(unsure) == 30, "each would have been sent whatever was drawn"
    assert {(s.selected_by, s.selection_probability) for s in unsure} == {("audit", 1.0), ("threshold", 1.0)}
    bench.close()


def test_too_large_a_payload_is_refused_before_it_is_decoded() -> None:
    image = NodeConfig(service="pets", kind="image-classifier", image=ImageInput(size=32, max_bytes=1024), labels=["a"])
    assert canonical_payload(image, b"x" * 1024) == b"x" * 1024
    with pytest.raises(UndecodablePayload, match="may have 1024"):
        canonical_payload(image, b"x" * 1025)


# --- feedback


def feedback(bench: Bench, value: object, at: datetime | None = AT) -> str | None:
    result = bench.gateway.feedback(SERVICE, "d1", json.dumps(value).encode(), at)
    return result.error if result else None


def test_a_label_is_kept_as_the_devices(bench: Bench) -> None:
    name = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT).sample_id
    assert feedback(bench, {"sample_id": name, "label": "no"}) is None
    assert feedback(bench, {"sample_id": name, "label": "yes", "by": "ann"}) is None
    store = MemoryStore()
    bench.spool.cut(everything=True)
    bench.spool.upload(store)
    (info,) = store.list(f"labels/{SERVICE}")
    first, second = read_segment(store.get(info.key), Label)[0]
    assert (first.sample_id, first.label, first.source, first.by, first.at) == (
        name,
        "no",
        "device",
        "d1",
        AT,
    )
    assert (second.label, second.by) == ("yes", "ann")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"sample_id": "ab" * 32, "label": "maybe"}, "send one of yes, no"),
        ({"sample_id": "ab" * 31, "label": "yes"}, "send the one of the result"),
        ({"sample_id": 7, "label": "yes"}, "send the one of the result"),
        ({"label": "yes"}, "send that as JSON"),
        ([], "send that as JSON"),
        ({"sample_id": "ab" * 32, "label": ["yes"]}, "is not a text"),
        ({"sample_id": "ab" * 32, "label": "yes", "by": "\ud800"}, "is not a text"),
    ],
)
def test_feedback_that_says_nothing_is_refused(bench: Bench, value: object, message: str) -> None:
    error = feedback(bench, value)
    assert error is not None and message in error
    assert bench.spool.samples == 0


def test_a_regressors_label_is_a_finite_number(tmp_path: Path) -> None:
    bench = Bench(tmp_path, grouped=True)
    regressor = NodeConfig(service=SERVICE, kind="tabular-regressor", features=FEATURES)
    bench.runtime.switch(SERVICE, Loaded("sha256:r2", "2", regressor, FakeModel(labels=None)))
    name = "ab" * 32
    assert feedback(bench, {"sample_id": name, "label": 6}) is None
    assert feedback(bench, {"sample_id": name, "label": "6.5"}) is None
    for wrong in ("yes", "nan", "inf", True):
        assert feedback(bench, {"sample_id": name, "label": wrong}) is not None
    bench.close()


# --- times


def test_a_capture_time_is_iso_or_microseconds() -> None:
    assert parse_time(None) is None and parse_time("") is None
    assert parse_time("1767225600000001") == AT + timedelta(microseconds=1)
    assert parse_time("2026-01-01T00:00:00.000001Z") == AT + timedelta(microseconds=1)
    assert parse_time("2026-01-01T01:00:00+01:00") == AT
    assert parse_time("2026-01-01T00:00:00") == AT


@given(st.text(max_size=30))
def test_any_other_time_is_refused_and_nothing_else_happens(text: str) -> None:
    try:
        at = parse_time(text)
    except MalformedTime:
        return
    assert at is None or at.tzinfo is UTC


@pytest.mark.parametrize("text", ["yesterday", "-5", "99999999999999999999", "1e9", "٣٣", "²", "0001-01-01"])
def test_a_malformed_time_is_named(text: str) -> None:
    with pytest.raises(MalformedTime, match=r"captured-at is .*: send "):
        parse_time(text)


def test_the_zone_of_a_time_does_not_change_the_sample(bench: Bench) -> None:
    there = AT.astimezone(timezone(timedelta(hours=5)))
    first = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", there).sample_id == first.sample_id


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("wall", "sent", "is_marked"),
    [
        (NOW, None, False),
        (NOW, 10.0, False),
        (NOW, -400.0, True),
        (NOW, 400.0, True),
        (60.0, None, True),  # the node itself thinks it is 1970
        (60.0, NOW, False),  # and may not blame a device that knows better
    ],
)
def test_a_sample_says_that_its_time_is_not_to_be_believed(
    bench: Bench, wall: float, sent: float | None, is_marked: bool
) -> None:
    bench.gateway.clock = NodeClock(lambda: wall, lambda: 1.0)
    at = None if sent is None else datetime.fromtimestamp(wall + sent, UTC)
    bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", at)
    (kept,) = captured(bench)
    assert (kept.__pydantic_extra__ or {}).get("clock_skew") == (True if is_marked else None)
    assert kept.captured_at.timestamp() == pytest.approx(wall + (sent or 0))


# --- the runtime's trial


def test_a_trial_is_lost_when_more_than_half_of_the_first_answers_fail(bench: Bench) -> None:
    lost: list[tuple[str, str]] = []
    bench.runtime.on_lost_trial = lambda service, release: lost.append((service, release))
    model = FakeModel()
    bench.runtime.switch(SERVICE, Loaded("sha256:r2", "2", config(), model, on_trial=True))
    for number in range(TRIAL):
        model.broken = number % 2 == 0  # exactly half
        bench.gateway.handle(SERVICE, "d1", b"[0.5,%d]" % number)
    model.broken = True
    for number in range(WINDOW // 2):
        bench.gateway.handle(SERVICE, "d1", b"[0.5,%d]" % number)
    assert lost == []
    bad = FakeModel(broken=True)
    bench.runtime.switch(SERVICE, Loaded("sha256:r3", "3", config(), bad, on_trial=True))
    for _ in range(TRIAL):
        bench.gateway.handle(SERVICE, "d1", b"nonsense")  # a bad payload is not the model's fault
    assert lost == []
    for number in range(30):
        bench.gateway.handle(SERVICE, "d1", b"[0.5,%d]" % number)
    assert lost == [(SERVICE, "sha256:r3")]
