from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgeloop.edge.http import AddressTaken, Site, UnusableAddress, bind, make_app
from edgeloop.edge.runtime import Runtime
from tests.unit.edge.fakes import SERVICE, Bench


class Web:
    """The application, asked without a network."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.pool = ThreadPoolExecutor(4)
        b = self.bench
        self.app = make_app(Site(b.gateway, b.runtime, b.stats, b.spool, self.pool))

    def ask(self, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
        import httpx

        async def request() -> tuple[int, str]:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                if body is None:
                    answer = await client.get(path)
                else:
                    data = body if isinstance(body, bytes) else json.dumps(body).encode()
                    answer = await client.post(path, content=data, headers=headers)
                return answer.status_code, answer.text

        return asyncio.run(request())

    def json(self, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, text = self.ask(path, body, headers)
        return status, json.loads(text)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    made.pool.shutdown()
    made.bench.close()


PREDICT = f"/v1/models/{SERVICE}:predict"
INFER = f"/v2/models/{SERVICE}/infer"


def tensor(kind: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": kind, "shape": shape, "data": data}]}


def b64(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def test_v1_answers_rows_objects_and_base64(web: Web) -> None:
    instances = [[0.5, 1], {"b64": b64(b"[0.25,1]")}, {"a": 0.75, "b": 2}]
    status, answer = web.json(PREDICT, {"instances": instances}, {"X-Device": "cam"})
    assert status == 200
    assert answer["predictions"] == ["yes"] * 3 and answer["confidences"] == [0.5, 0.25, 0.75]
    assert len(set(answer["sample_ids"])) == 3
    assert web.bench.spool.samples == 3


def test_the_same_request_with_its_capture_time_counts_once(web: Web) -> None:
    headers = {"X-Device": "cam", "X-Captured-At": "2026-01-01T00:00:00Z"}
    answers = [web.json(PREDICT, {"instances": [[0.5, 1]]}, headers)[1] for _ in range(2)]
    assert answers[0] == answers[1] and web.bench.spool.samples == 1


def test_v2_answers_with_outputs_and_the_callers_id(web: Web) -> None:
    status, answer = web.json(INFER, tensor("FP32", [2, 2], [0.5, 1, 0.25, 1]) | {"id": "7"})
    assert status == 200 and (answer["model_name"], answer["id"]) == (SERVICE, "7")
    outputs = {o["name"]: o for o in answer["outputs"]}
    assert outputs["prediction"]["datatype"] == "BYTES" and outputs["prediction"]["data"] == ["yes", "yes"]
    assert outputs["confidence"]["data"] == [0.5, 0.25] and outputs["sample_id"]["shape"] == [2]


@pytest.mark.parametrize("data", [[b64(b"[0.5,1]")], [{"b64": b64(b"[0.5,1]")}]])
def test_v2_takes_bytes_as_base64(web: Web, data: list[Any]) -> None:
    status, answer = web.json(INFER, tensor("BYTES", [1], data))
    assert status == 200 and "id" not in answer


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (PREDICT, b"junk", 400),
        (PREDICT, [], 400),
        (PREDICT, {"instances": []}, 400),
        (PREDICT, {"instances": [{"b64": "%%"}]}, 400),
        (PREDICT, {"instances": ["text"]}, 400),
        (PREDICT, {"instances": [[True, 1]]}, 400),
        (PREDICT, {"instances": [[10**400, 1]]}, 400),
        (PREDICT, {"instances": [[1]]}, 400),
        (PREDICT, {"instances": [[1, 2]] * 1025}, 413),
        (PREDICT, b'{"instances": [[NaN, 1]]}', 400),
        ("/v1/models/other:predict", {"instances": [[1, 2]]}, 404),
        (INFER, {}, 400),
        (INFER, tensor("FP32", [3, 2], [1, 2]), 400),
        (INFER, tensor("FP32", [-1, 2], [1, 2]), 400),
        (INFER, tensor("INT8", [1, 2], [1, 2]), 400),
        (INFER, tensor("BYTES", [1], [7]), 400),
        (INFER, {"inputs": [{"datatype": "FP32"}]}, 400),
        ("/v2/models/other/infer", {}, 404),
    ],
)
def test_a_wrong_request_is_told_what_to_send(web: Web, path: str, body: object, status: int) -> None:
    got, answer = web.json(path, body)
    assert got == status and ":" in answer["error"]


def test_a_wrong_capture_time_is_refused(web: Web) -> None:
    assert web.json(PREDICT, {"instances": [[1, 2]]}, {"X-Captured-At": "noon"})[0] == 400


def test_a_failing_model_is_the_servers_fault(web: Web) -> None:
    web.bench.model.broken = True
    status, answer = web.json(PREDICT, {"instances": [[0.5, 1]]})
    assert status == 500 and "a tensor went missing" in answer["error"]


def test_health_says_whether_each_service_is_loaded(web: Web) -> None:
    assert web.json("/healthz")[0] == 200 and web.json("/v2/health/live")[0] == 200
    assert web.json("/readyz") == (200, {"ready": True, "services": {SERVICE: True}})
    assert web.json(f"/v2/models/{SERVICE}/ready")[0] == 200
    web.bench.runtime._loaded.clear()
    assert web.json("/readyz") == (503, {"ready": False, "services": {SERVICE: False}})
    assert web.json("/v2/health/ready")[0] == 503 and web.json(f"/v2/models/{SERVICE}/ready")[0] == 503
    assert web.json(f"/v1/models/{SERVICE}")[0] == 503
    assert web.json(PREDICT, {"instances": [[1, 2]]})[0] == 503


def test_models_describe_themselves(web: Web) -> None:
    status, v1 = web.json(f"/v1/models/{SERVICE}")
    assert status == 200 and v1["model_version_status"][0]["state"] == "AVAILABLE"
    status, v2 = web.json(f"/v2/models/{SERVICE}")
    assert status == 200 and v2["inputs"][0]["shape"] == [-1, 2] and v2["versions"] == ["1"]
    assert web.json("/v1/models/other")[0] == 404


def test_metrics_count_what_happened(web: Web) -> None:
    web.json(PREDICT, {"instances": [[0.5, 1], [0.25, 1]]})
    web.json(PREDICT, {"instances": [[1]]})
    status, text = web.ask("/metrics")
    lines = text.splitlines()
    assert status == 200
    for line in (
        f'edgeloop_requests_total{{service="{SERVICE}",outcome="ok"}} 2',
        f'edgeloop_requests_total{{service="{SERVICE}",outcome="bad_input"}} 1',
        f'edgeloop_request_seconds_bucket{{service="{SERVICE}",le="+Inf"}} 2',
        f'edgeloop_request_seconds_count{{service="{SERVICE}"}} 2',
        f'edgeloop_captured_total{{service="{SERVICE}",selected_by="audit"}} 2',
        "edgeloop_spool_samples 2",
        f"edgeloop_spool_bytes {web.bench.spool.size}",
        f'edgeloop_release_info{{service="{SERVICE}",digest="sha256:r1"}} 1',
    ):
        assert line in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80", "example.org:80"])
def test_an_address_that_others_reach_is_refused(address: str) -> None:
    with pytest.raises(UnusableAddress, match="insecure_http: true"):
        bind(address, insecure=False)


@pytest.mark.parametrize("address", ["", "8081", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(UnusableAddress, match="write host:port"):
        bind(address, insecure=True)


def test_a_taken_port_is_named() -> None:
    with bind("127.0.0.1:0", insecure=False) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressTaken, match=str(port)):
            bind(f"127.0.0.1:{port}", insecure=False)
    with bind("0.0.0.0:0", insecure=True) as anywhere:
        assert anywhere.getsockname()[1]


def test_an_empty_runtime_is_not_ready() -> None:
    runtime = Runtime(1)
    assert runtime.loaded(SERVICE) is None
    runtime.close()
