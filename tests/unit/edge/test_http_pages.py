"""The pages around inference: health, metadata, the repository, feedback, metrics."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from typing import Any

import pytest

from edgeloop.edge.results import Result
from edgeloop.errors import EdgeloopError, Unavailable
from tests.unit.edge.asking import NUMBER, PICTURES, PREDICT, MakeWeb, Web
from tests.unit.edge.fakes import SERVICE

# --- health, metadata, repository


def test_health_says_whether_each_service_is_loaded(web: Web) -> None:
    assert web.answer("/healthz") == web.answer("/v2/health/live") == {"live": True}
    assert web.answer("/readyz") == {"ready": True, "services": {SERVICE: True, PICTURES: True, NUMBER: True}}
    assert web.ask("/readyz", method="HEAD").status == 200
    assert web.answer(f"/v2/models/{SERVICE}/ready") == {"name": SERVICE, "ready": True}
    web.bench.runtime.unload(SERVICE)
    for path in ("/readyz", "/v2/health/ready"):
        response = web.ask(path)
        assert response.status == 503 and response.json()["services"] == {SERVICE: False, PICTURES: True, NUMBER: True}
    assert web.ask(f"/v2/models/{SERVICE}/ready").status == 503
    for path in (f"/v1/models/{SERVICE}", f"/v2/models/{SERVICE}"):
        assert web.ask(path).status == 503 and "no release loaded" in web.ask(path).error
    assert web.ask(PREDICT, {"instances": [[1, 2]]}).status == 503
    assert web.bench.stats.services[SERVICE].outcomes == {"not_ready": 1}


def test_v1_describes_models(web: Web) -> None:
    assert web.answer("/v1/models") == {"models": [SERVICE, PICTURES, NUMBER]}
    for path in (f"/v1/models/{PICTURES}", f"/v1/models/{PICTURES}/versions/3"):
        status = web.answer(path)["model_version_status"]
        assert [(s["version"], s["state"]) for s in status] == [("3", "AVAILABLE")]
    assert web.ask(f"/v1/models/{PICTURES}/versions/4").status == 404
    assert web.ask("/v1/models/other").status == 404


def test_v2_describes_the_server_and_its_models(web: Web) -> None:
    assert web.answer("/v2")["extensions"] == ["binary_tensor_data", "model_repository"]
    rows = web.answer(f"/v2/models/{SERVICE}")
    assert rows["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 2]}] and rows["versions"] == ["1"]
    assert rows["parameters"] == {"features": ["a", "b"], "labels": ["yes", "no"]}
    pictures = web.answer(f"/v2/models/{PICTURES}/versions/3")
    assert pictures["inputs"] == [{"name": "input", "datatype": "BYTES", "shape": [-1]}]
    assert {o["name"]: (o["datatype"], o["shape"]) for o in pictures["outputs"]} == {
        "prediction": ("BYTES", [-1]),
        "confidence": ("FP64", [-1]),
        "sample_id": ("BYTES", [-1]),
        "probabilities": ("FP64", [-1, 2]),
    }
    number = web.answer(f"/v2/models/{NUMBER}")
    assert [(o["name"], o["datatype"]) for o in number["outputs"]] == [("prediction", "FP64"), ("sample_id", "BYTES")]
    for path in (f"/v2/models/{SERVICE}/versions/2", f"/v2/models/{SERVICE}/versions/2/ready", "/v2/models/other"):
        assert web.ask(path).status == 404


def test_the_repository_lists_what_there_is(web: Web) -> None:
    web.bench.runtime.unload(NUMBER)
    entries = web.answer("/v2/repository/index", b"")
    states = {e["name"]: (e["state"], e["version"]) for e in entries}
    assert states == {SERVICE: ("READY", "1"), PICTURES: ("READY", "3"), NUMBER: ("UNAVAILABLE", "")}
    ready = web.answer("/v2/repository/index", {"ready": True})
    assert [e["name"] for e in ready] == [SERVICE, PICTURES]
    assert web.ask("/v2/repository/index", {"ready": 1}).status == 400


def test_nobody_administrates_a_node_that_names_no_administrator(webs: MakeWeb) -> None:
    done: list[str] = []
    web = webs(load=done.append, unload=done.append)
    for what in ("load", "unload"):
        response = web.ask(f"/v2/repository/models/{SERVICE}/{what}", b"")
        assert response.status == 403 and "set access: access.yaml" in response.error
    assert done == []


# --- feedback


def test_feedback_is_kept_as_a_label(web: Web) -> None:
    sample = web.answer(PREDICT, {"instances": [[0.5, 1]]})["sample_ids"][0]
    response = web.ask(f"/v1/models/{SERVICE}/feedback", {"sample_id": sample, "label": "no"}, {"X-Device": "cam"})
    assert (response.status, response.json()) == (202, {"accepted": True})
    assert web.bench.spool.samples == 2


@pytest.mark.parametrize(
    ("service", "body", "status"),
    [
        (SERVICE, {"sample_id": "f" * 64, "label": "no"}, 404),
        (SERVICE, {"sample_id": "f" * 64, "label": "maybe"}, 400),
        (SERVICE, {"sample_id": "f", "label": "no"}, 400),
        (SERVICE, b"\xff", 400),
        (SERVICE, b" " * 65537, 413),
        ("other", {"sample_id": "f" * 64, "label": "no"}, 404),
    ],
)
def test_wrong_feedback_is_refused(web: Web, service: str, body: object, status: int) -> None:
    response = web.ask(f"/v1/models/{service}/feedback", body)
    assert response.status == status and ":" in response.error
    assert web.bench.spool.samples == 0


# --- metrics


def test_metrics_count_what_happened(web: Web) -> None:
    web.ask(PREDICT, {"instances": [[0.5, 1], [0.25, 1]]})
    web.ask(PREDICT, {"instances": [[1]]})
    web.ask("/nowhere")
    response = web.ask("/metrics")
    lines = response.body.decode().splitlines()
    assert response.status == 200
    for line in (
        f'edgeloop_requests_total{{service="{SERVICE}",outcome="ok"}} 2',
        f'edgeloop_requests_total{{service="{SERVICE}",outcome="bad_input"}} 1',
        f'edgeloop_request_seconds_bucket{{service="{SERVICE}",le="+Inf"}} 2',
        f'edgeloop_request_seconds_count{{service="{SERVICE}"}} 2',
        f'edgeloop_captured_total{{service="{SERVICE}",selected_by="audit"}} 2',
        "edgeloop_spool_samples 2",
        f"edgeloop_spool_bytes {web.bench.spool.size}",
        f'edgeloop_release_info{{service="{SERVICE}",digest="sha256:r1"}} 1',
        'edgeloop_http_refused_total{reason="malformed"} 1',
        'edgeloop_http_refused_total{reason="not_found"} 1',
        "edgeloop_http_in_work 0",
    ):
        assert line in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


class Unloadable(EdgeloopError):
    """A failure of the agent."""


class StoreAway(Unavailable):
    """Another, worth a retry."""


@pytest.mark.parametrize(("error", "status"), [(Unloadable("no: mend it"), 500), (StoreAway("away: wait"), 503)])
def test_what_the_agent_refuses_is_told(webs: MakeWeb, error: EdgeloopError, status: int) -> None:
    from edgeloop.edge.http.access import Access, Caller

    def load(_service: str) -> None:
        raise error

    admin = Caller(name="ann", role="admin", certificate="ann")
    web = webs(access=Access([admin]), load=load)
    response = web.ask(f"/v2/repository/models/{SERVICE}/load", b"", peer="ann")
    assert response.status == status and response.error == str(error)


def test_feedback_is_handed_on_as_it_came(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    busy = Result(SERVICE, "cam", "n1", "now", error="the disk is full: send it later", outcome="not_ready")

    def feedback(*what: object) -> Result:
        given.append(what)
        return busy

    monkeypatch.setattr(web.bench.gateway, "feedback", feedback)
    headers = {"X-Device": "cam", "X-Captured-At": "1000000", "Content-Encoding": "gzip"}
    response = web.ask(f"/v1/models/{SERVICE}/feedback", gzip.compress(b"a label"), headers)
    assert response.status == 503 and response.error == busy.error
    assert given == [(SERVICE, "cam", b"a label", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))]
