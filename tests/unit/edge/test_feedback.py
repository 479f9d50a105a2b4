"""Feedback that is no use is refused with a reason, and what is taken counts once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.objects import MemoryStore
from edgeloop.edge.feedback import MalformedFeedback, is_sample_id, named_sample, parse_feedback
from edgeloop.samples.received import read_segment
from edgeloop.samples.records import Label
from tests.unit.edge.fakes import SERVICE, Bench

AT = datetime(2026, 1, 1, tzinfo=UTC)
NOBODY = "0" * 64


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def labels(bench: Bench) -> list[Label]:
    store = MemoryStore()
    bench.spool.cut(everything=True)
    bench.spool.upload(store)
    return [r for info in store.list("labels") for r in read_segment(store.get(info.key), Label)[0]]


def send(bench: Bench, name: str | None, label: Any = "yes", service: str = SERVICE) -> str | None:
    result = bench.gateway.feedback(service, "d1", json.dumps({"sample_id": name, "label": label}).encode(), AT)
    return None if result is None else result.error


def test_a_label_for_a_captured_sample_is_kept(bench: Bench) -> None:
    result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert send(bench, result.sample_id) is None
    (label,) = labels(bench)
    assert (label.sample_id, label.label, label.source, label.by) == (result.sample_id, "yes", "device", "d1")


def test_the_same_label_again_is_kept_once(bench: Bench) -> None:
    result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert send(bench, result.sample_id) is None and send(bench, result.sample_id) is None
    assert len(labels(bench)) == 1


def test_a_label_for_a_sample_that_was_uploaded_and_the_node_restarted_is_kept(bench: Bench) -> None:
    result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    labels(bench)
    bench.close()
    bench.start()
    assert send(bench, result.sample_id) is None


def test_a_label_for_an_unknown_sample_is_refused_and_counted(bench: Bench) -> None:
    assert "was not captured here" in str(send(bench, NOBODY))
    assert bench.stats.services[SERVICE].feedback_refused == 1 and labels(bench) == []


def test_a_label_for_an_input_that_was_not_captured_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, audit=1e-9)
    result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert not result.captured and "was not captured here" in str(send(bench, result.sample_id))
    bench.close()


def test_where_nodes_share_devices_another_node_may_have_the_sample(tmp_path: Path) -> None:
    bench = Bench(tmp_path, grouped=True)
    assert send(bench, NOBODY) is None and len(labels(bench)) == 1
    bench.close()


@pytest.mark.parametrize(
    ("label", "why"),
    [("maybe", "send one of yes, no"), (True, "not a text"), ("\ud800", "not a text"), (None, "not a text")],
)
def test_a_label_outside_the_set_is_refused(bench: Bench, label: Any, why: str) -> None:
    result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", AT)
    assert why in str(send(bench, result.sample_id, label))


def test_feedback_for_another_service_is_nobodys(bench: Bench) -> None:
    assert "does not serve other" in str(send(bench, NOBODY, service="other"))


def test_audited_answers_that_devices_label_are_tallied(bench: Bench) -> None:
    for at, label in ((1, "yes"), (2, "no"), (3, "yes")):
        result = bench.gateway.handle(SERVICE, "d1", b"[0.5,1]", datetime.fromtimestamp(at, UTC))
        assert send(bench, result.sample_id, label) is None
    assert bench.stats.services[SERVICE].audit == {"labelled": 3, "agreed": 2}


@given(st.binary(max_size=60) | st.text().map(lambda t: json.dumps({"sample_id": NOBODY, "label": t}).encode()))
def test_any_bytes_are_feedback_or_malformed(payload: bytes) -> None:
    with contextlib.suppress(MalformedFeedback):
        assert is_sample_id(parse_feedback(payload).sample_id)
    assert named_sample(payload) is None or is_sample_id(named_sample(payload))


def test_what_names_its_sample_is_answered_for_it() -> None:
    assert named_sample(json.dumps({"sample_id": NOBODY, "label": 7e400}).encode()) == NOBODY
    assert named_sample(b'{"sample_id": 5}') is None and named_sample(b"[") is None
