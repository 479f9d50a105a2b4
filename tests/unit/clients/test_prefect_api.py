"""A Prefect server that is slow to answer is asked again; one that is not there is not."""

from __future__ import annotations

import httpx
import pytest

from edgeloop.clients.orchestrator_types import OrchestratorUnavailable
from edgeloop.clients.prefect_api import PrefectApi


class Stalling:
    """Does not answer the first ``stalls`` requests in time."""

    def __init__(self) -> None:
        self.stalls = 0
        self.asked = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.asked <= self.stalls:
            raise httpx.ReadTimeout("timed out", request=request)
        return httpx.Response(200, json=[])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Stalling:
    made, real = Stalling(), httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **how: real(**how, transport=httpx.MockTransport(made)))
    return made


def api() -> PrefectApi:
    return PrefectApi("http://prefect:4200/api", 1, None)


def test_a_request_that_is_not_answered_in_time_is_made_again(server: Stalling) -> None:
    server.stalls = 2
    assert api().all("/deployments/filter", {}) == []
    assert server.asked == 3


def test_a_server_that_stays_silent_is_given_up(server: Stalling) -> None:
    server.stalls = 100
    with pytest.raises(OrchestratorUnavailable, match="timed out"):
        api().send("POST", "/deployments/filter", {})
    assert server.asked == 3


def test_a_probe_asks_once(server: Stalling) -> None:
    server.stalls = 100
    with pytest.raises(OrchestratorUnavailable):
        api().send("POST", "/deployments/filter", {}, tries=1)
    assert server.asked == 1


def test_no_server_is_no_reason_to_wait() -> None:
    with pytest.raises(OrchestratorUnavailable, match="is the stack up"):
        PrefectApi("http://127.0.0.1:9", 5, None).send("POST", "/deployments/filter", {})
