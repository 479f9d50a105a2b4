"""One request to Prefect's REST API: repeated while the server is busy, its failures as edgeloop's errors.

On SQLite a server answers 503, or nothing for a while, when another writer holds the database: we ask again. Every
request of ours may be repeated: it reads, sets what is set already, or carries a key by which Prefect knows it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeloop.clients.orchestrator_types import OrchestratorRefused, OrchestratorUnavailable, RefusedParameters
from edgeloop.errors import EdgeloopError

if TYPE_CHECKING:
    import httpx

_BUSY_TRIES = 8
#: A server that says nothing costs the whole timeout each time.
_SILENT_TRIES = 3
_PAGE = 200


class PrefectApi:
    """Connections to one server. They close with the object, or with the process: nobody need call `close`."""

    def __init__(self, url: str, timeout: float, auth: tuple[str, str] | None) -> None:
        import httpx

        self.url = url
        self._http = httpx.Client(base_url=url, timeout=timeout, auth=auth)
        self.close = weakref.finalize(self, self._http.close)
        """Close the connections; once is enough, and again is harmless."""

    def all(self, path: str, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every row of a list that the server gives in pages."""
        rows: list[dict[str, Any]] = []
        while True:
            page = self.send("POST", path, {**wanted, "limit": _PAGE, "offset": len(rows)}).json()
            rows += page
            if len(page) < _PAGE:
                return rows

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        tries: int = _BUSY_TRIES,
        missing: EdgeloopError | None = None,
        parameters_of: str | None = None,
    ) -> httpx.Response:
        """The server's answer, if it is a good one.

        `missing` is what to raise on 404; `parameters_of` says what was asked, should its parameters be refused.
        Raises OrchestratorUnavailable, OrchestratorRefused, RefusedParameters, or `missing`.
        """
        answer = self._patiently(method, path, body, tries)
        if answer.is_success:
            return answer
        if answer.status_code == 404 and missing:
            raise missing
        if answer.status_code in (409, 422) and parameters_of:
            raise RefusedParameters(f"{parameters_of}: {_reason(answer)}")
        said = f"Prefect at {self.url} answered {answer.status_code} to {method} {path}: {_reason(answer)}"
        if answer.status_code >= 500:
            raise OrchestratorUnavailable(f"{said}; try again, or read the server's log")
        raise OrchestratorRefused(f"{said}; compare the server's version with edgeloop's requirements")

    def _patiently(self, method: str, path: str, body: Any, tries: int) -> httpx.Response:
        import httpx

        pause, silent = 0.1, 0
        for left in range(tries - 1, -1, -1):
            try:
                answer = self._http.request(method, path, json=body)
            except httpx.TransportError as error:
                silent += 1
                if not isinstance(error, httpx.ReadTimeout) or not left or silent >= _SILENT_TRIES:
                    said = str(error) or type(error).__name__
                    raise OrchestratorUnavailable(
                        f"Prefect at {self.url} does not answer ({said}): is the stack up?"
                    ) from error
                continue
            if answer.status_code != 503 or not left:
                break
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        return answer


def _reason(answer: httpx.Response) -> str:
    """Prefect's reason on one line: ``detail``, or the messages of a validation error."""
    try:
        said = answer.json()
    except ValueError:
        return answer.text[:200].replace("\n", " ")
    reason = said.get("detail") or said.get("exception_detail") or said if isinstance(said, dict) else said
    return str(reason).replace("\n", " ")[:400]
