"""V1 over HTTP, bodies and headers, and what wrong requests are told."""

from __future__ import annotations

import base64
import gzip

import pytest

from edgeloop.edge.http.messages import MAX_VALUES
from tests.unit.edge.asking import INFER, NUMBER, PICTURE, PICTURES, PREDICT, MakeWeb, Web, tensor
from tests.unit.edge.fakes import SERVICE


def b64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


# --- V1


def test_v1_answers_rows_objects_and_base64(web: Web) -> None:
    instances = [[0.5, 1], {"b64": b64(b"[0.25,1]")}, {"a": 0.75, "b": 2}, {"input": [0.125, 3]}]
    answer = web.answer(PREDICT, {"instances": instances}, {"X-Device": "cam"})
    assert answer["predictions"] == ["yes"] * 4 and answer["confidences"] == [0.5, 0.25, 0.75, 0.125]
    assert len(set(answer["sample_ids"])) == 4
    assert web.bench.spool.samples == 4


@pytest.mark.parametrize(
    "inputs",
    [{"a": [0.5, 0.25], "b": [1, 2]}, {"b": [[1], [2]], "a": [[0.5], [0.25]]}, [[0.5, 1], [0.25, 2]]],
)
def test_v1_answers_columns_with_columns(web: Web, inputs: object) -> None:
    answer = web.answer(PREDICT, {"inputs": inputs, "signature_name": "serving_default"})
    assert set(answer) == {"outputs"}
    assert answer["outputs"]["prediction"] == ["yes", "yes"] and answer["outputs"]["confidence"] == [0.5, 0.25]


@pytest.mark.parametrize("path", [f"/v1/models/{PICTURES}:predict", f"/v1/models/{PICTURES}/versions/3:predict"])
def test_v1_answers_pictures_by_row_and_by_column(web: Web, path: str) -> None:
    picture = {"b64": b64(PICTURE)}
    assert web.answer(path, {"instances": [picture, {"input": picture}]})["predictions"] == ["dog", "dog"]
    for inputs in ([picture], {"input": [picture]}):
        assert web.answer(path, {"inputs": inputs})["outputs"]["prediction"] == ["dog"]


def test_a_regressor_answers_numbers_and_no_confidence(web: Web) -> None:
    path = f"/v1/models/{NUMBER}:predict"
    answer = web.answer(path, {"instances": [[2.5], [1]]})
    assert answer["predictions"] == [2.5, 1.0] and answer["confidences"] == [None, None]
    assert set(web.answer(path, {"inputs": {"x": [7]}})["outputs"]) == {"prediction", "sample_id"}


def test_an_answer_that_is_no_number_is_the_servers_fault(web: Web) -> None:
    web.number.says = "nan"
    response = web.ask(f"/v1/models/{NUMBER}:predict", {"instances": [[2.5]]})
    assert response.status == 500 and "nan" in response.error


def test_the_same_request_with_its_capture_time_counts_once(web: Web) -> None:
    headers = {"X-Device": "cam", "X-Captured-At": "2026-01-01T00:00:00Z"}
    answers = [web.answer(PREDICT, {"instances": [[0.5, 1]]}, headers) for _ in range(2)]
    assert answers[0] == answers[1] and web.bench.spool.samples == 1


def test_many_instances_are_answered_in_their_order(web: Web) -> None:
    values = [n / 1024 for n in range(300)]
    answer = web.answer(PREDICT, {"instances": [[v, 1] for v in values]})
    assert answer["confidences"] == values
    assert web.site.work.in_work == 0


def test_the_first_bad_instance_is_named_and_ends_the_request(web: Web) -> None:
    instances = [[n / 1024, 1] if n != 200 else [1] for n in range(1000)]
    response = web.ask(PREDICT, {"instances": instances})
    assert response.status == 400 and response.error.startswith("instance 200: row has 1 values")
    assert web.bench.model.calls < 300
    assert web.site.work.in_work == 0


WRONG: list[tuple[str, object, int, str]] = [
    (PREDICT, b"junk", 400, "the body of 4 bytes is not JSON"),
    (PREDICT, b"\xff\xfe{\x00}\x00", 400, "not UTF-8 (byte 0)"),
    (PREDICT, b"[" * 100_000, 400, "is not JSON"),
    (PREDICT, b'{"instances": [[' + b"1," * MAX_VALUES + b"1]]}", 413, "more than 1000000 JSON values"),
    (PREDICT, [], 400, "a JSON list"),
    (PREDICT, {}, 400, 'one of "instances" and "inputs"'),
    (PREDICT, {"instances": [[1, 2]], "inputs": [[1, 2]]}, 400, 'one of "instances" and "inputs"'),
    (PREDICT, {"instances": []}, 400, '"instances" is a list of 0'),
    (PREDICT, {"instances": {"a": 1}}, 400, '"instances" is an object of 1'),
    (PREDICT, {"instances": [[1, 2]], "signature_name": "other"}, 400, "signature_name is 'other'"),
    (PREDICT, {"instances": [{"b64": "%%"}]}, 400, "instance 0 is not base64"),
    (PREDICT, {"instances": [{"b64": "é"}]}, 400, "instance 0 is not base64"),
    (PREDICT, {"instances": [{"b64": 7}]}, 400, 'instance 0 is 7: send {"b64": …}'),
    (PREDICT, {"instances": ["text"]}, 400, "instance 0 is 'text'"),
    (PREDICT, {"instances": [[True, 1]]}, 400, "instance 0 has True at 0"),
    (PREDICT, {"instances": [[1, None]]}, 400, "instance 0 has None at 1"),
    (PREDICT, {"instances": [[10**400, 1]]}, 400, "instance 0 has a number that is out of range"),
    (PREDICT, {"instances": [[1]]}, 400, "row has 1 values"),
    (PREDICT, {"instances": [{"a": 1, "c": 2}]}, 400, "lacks ['b']"),
    (PREDICT, {"instances": [[1, 2]] * 1025}, 413, "1025 instances are over 1024"),
    (PREDICT, b'{"instances": [[NaN, 1]]}', 400, "instance 0 has a number that is not finite"),
    (PREDICT, {"inputs": {"a": [1, 2], "b": [1]}}, 400, "differ in length"),
    (PREDICT, {"inputs": {"a": [1], "c": [1]}}, 400, "send a list"),
    (PREDICT, {"inputs": {"a": 1, "b": 2}}, 400, 'column a of "inputs" is 1'),
    ("/v1/models/other:predict", {"instances": [[1, 2]]}, 404, "does not serve other"),
    (f"/v1/models/{SERVICE}/versions/9:predict", {"instances": [[1, 2]]}, 404, "serves version 1, not 9"),
    (f"/v1/models/{PICTURES}:predict", {"instances": [[1, 2]]}, 400, "instance 0 is a list of 2"),
    (f"/v1/models/{PICTURES}:predict", {"instances": [b64(PICTURE)]}, 400, "instance 0 is '"),
    (f"/v1/models/{PICTURES}:predict", {"instances": [{"b64": b64(b"GIF")}]}, 400, "is not an image"),
    (f"/v1/models/{PICTURES}:predict", {"instances": [{"b64": b64(b"x" * 4097)}]}, 400, "4097 bytes"),
    ("/v1/models/adder:explain", {}, 404, "no page '/v1/models/adder:explain'"),
    ("/healthz", {}, 405, "does not take POST: send GET, HEAD"),
]


@pytest.mark.parametrize(("path", "body", "status", "says"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_request_is_told_what_is_wrong(web: Web, path: str, body: object, status: int, says: str) -> None:
    response = web.ask(path, body)
    assert (response.status, says in response.error) == (status, True), response.body
    assert web.site.work.refused.total() == 1 and web.site.work.in_work == 0
    assert web.answer(PREDICT, {"instances": [[0.5, 1]]})["predictions"] == ["yes"]


def test_what_is_no_request_of_a_service_counts_as_its_bad_input(web: Web) -> None:
    for body in (b"junk", {"instances": [[1]]}, {"instances": [["x", 1]]}):
        web.ask(PREDICT, body)
    assert web.bench.stats.services[SERVICE].outcomes == {"bad_input": 3}


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"X-Captured-At": "noon"}, "captured-at is 'noon'"),
        ({"X-Device": "a/b"}, "X-Device is 'a/b'"),
        ({"X-Device": "d" * 129}, "at most 128"),
        ({"X-Device": "a\x01b"}, "printable"),
        ({"Content-Length": "-1"}, "Content-Length is"),
    ],
)
def test_a_wrong_header_is_named(web: Web, headers: dict[str, str], says: str) -> None:
    response = web.ask(PREDICT, {"instances": [[1, 2]]}, headers)
    assert response.status == 400 and says in response.error


def test_a_failing_model_is_the_servers_fault(web: Web) -> None:
    web.bench.model.broken = True
    response = web.ask(PREDICT, {"instances": [[0.5, 1]]})
    assert response.status == 500 and "a tensor went missing" in response.error


def test_a_failing_page_says_so_and_nothing_of_its_inside(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web.bench.gateway, "handle", lambda *_: 1 / 0)
    response = web.ask(PREDICT, {"instances": [[0.5, 1], [0.5, 2]]})
    assert response.status == 500 and response.error == "the node failed on this request: see its log"
    assert "ZeroDivisionError" in caplog.text and web.site.work.in_work == 0


# --- bodies


def test_a_gzipped_body_is_taken(web: Web) -> None:
    body = gzip.compress(b'{"instances": [[0.5, 1]]}')
    assert web.answer(PREDICT, body, {"Content-Encoding": "GZIP"})["confidences"] == [0.5]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "says"),
    [
        (b"{}", "br", 415, "Content-Encoding is 'br'"),
        (b"{}", "gzip, gzip", 415, "Content-Encoding is"),
        (b"{}", "gzip", 400, "is not gzip"),
        (gzip.compress(b"{}", mtime=0)[:-1], "gzip", 400, "not one whole gzip stream"),
        (gzip.compress(b"{}", mtime=0) + b"more", "gzip", 400, "not one whole gzip stream"),
        (gzip.compress(b" " * 200_000, mtime=0), "gzip", 413, "over 100000 bytes when decompressed"),
    ],
)
def test_a_compressed_body_is_bounded(webs: MakeWeb, body: bytes, encoding: str, status: int, says: str) -> None:
    web = webs(max_body=100_000)
    response = web.ask(PREDICT, body, {"Content-Encoding": encoding})
    assert response.status == status and says in response.error


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "100001"}, {"Content-Length": "9" * 5000}])
def test_an_oversized_body_is_refused_and_let_go(webs: MakeWeb, headers: dict[str, str]) -> None:
    web = webs(max_body=100_000)
    response = web.ask(PREDICT, b" " * 100_001, headers)
    assert response.status == 413 and "may have 100000" in response.error
    assert web.site.work._held == 0
    assert web.ask(PREDICT, b" " * 100_000).status == 400


def test_a_body_in_many_pieces_is_put_together(web: Web) -> None:
    assert web.answer(PREDICT, {"instances": [[0.5, 1]]}, chunk=3)["confidences"] == [0.5]


def test_v2_and_v1_say_the_same(web: Web) -> None:
    one = web.answer(PREDICT, {"instances": [[0.5, 1]]})
    two = {o["name"]: o["data"] for o in web.answer(INFER, tensor("FP64", [1, 2], [0.5, 1]))["outputs"]}
    assert (one["predictions"], one["confidences"]) == (two["prediction"], two["confidence"])
