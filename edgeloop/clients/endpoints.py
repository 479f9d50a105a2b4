"""Model servers beside the node, so that what runs only in TF Serving, KServe or MLServer can answer here too."""

from __future__ import annotations

import contextlib
import json
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.clients.endpoint_answers import answer_of
from edgeloop.clients.endpoint_wire import Outputs, Tensor, v1_call, v1_outputs, v2_call, v2_outputs, words_of
from edgeloop.clients.lending import Lender, usable_cores
from edgeloop.clients.model_types import Answer, MalformedAnswer, UnloadableModel
from edgeloop.errors import EdgeloopError, Unavailable
from edgeloop.samples.payloads import UndecodablePayload, decode_features, decode_image
from edgeloop.samples.service import NodeConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Longest answer read from a server, in bytes.
MAX_ANSWER = 16 * 1024 * 1024
_AWAY = (401, 403, 404, 408, 425, 429, 502, 503, 504)


class ModelUnavailable(Unavailable):
    """The server of a model does not answer, is too slow, or does not have the model ready."""


class RefusedInput(UndecodablePayload):
    """The server of a model says that it cannot use the input."""


class EndpointFailed(EdgeloopError):
    """The server of a model failed on an input."""


class Endpoint(BaseModel):
    """One model on a server that speaks V1 (TF Serving, KServe) or V2 (Open Inference Protocol)."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    protocol: Literal["v1", "v2"]
    url: str = Field(pattern=r"^https?://[^/?#\s]+(/[^?#\s]*)?$")
    """Address of the server, without the protocol's own path: ``http://127.0.0.1:8080``."""
    model: str = Field(pattern=r"^[^/?#\s]+$", max_length=255)
    """Name of the model on that server."""
    timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    """How long one request may take."""
    binary: bool | None = None
    """Send V2 tensors as binary data; null asks the server whether it lists that extension. KServe takes it without
    listing it, MLServer does not take it."""


@cache
def decoding() -> Lender[int]:
    """The turns to decode an image, one per core for all models of the process: a large image takes 100 MB."""
    return Lender(range(usable_cores()))


class RemoteModel:
    """A model on a server beside the node. It has no features to keep, so its samples travel without an embedding.

    Raises:
        UnloadableModel: the server does not know the model.
        ModelUnavailable: the server does not answer, or the model is not ready yet.
    """

    backbone_digest: str | None = None

    def __init__(self, endpoint: Endpoint, config: NodeConfig) -> None:
        self._endpoint = endpoint
        self._config = config
        self._server = _Server(endpoint)
        self.labels: tuple[str, ...] | None = tuple(config.labels) if config.labels else None
        self._tensor, self._binary = Tensor(), False
        self._check_ready()
        if endpoint.protocol == "v2":
            self._learn()

    def predict(self, payload: bytes) -> Answer:
        """Answer one payload.

        Raises:
            UndecodablePayload: it is no input of this service, or the server says so.
            ModelUnavailable: the server is away, too slow, or has no such model any more.
            EndpointFailed, MalformedAnswer: the server failed, or its answer makes no sense.
        """
        if self._config.kind == "image-classifier":
            # What is no image must not reach the server, and what selects samples looks at the pixels.
            with decoding().lend():
                image = decode_image(payload, self._config.image.size if self._config.image else 224)
            return answer_of(self._ask(payload), self.labels, image)
        row = decode_features(payload, self._config.feature_names).tolist()
        return answer_of(self._ask(row), self.labels)

    def _ask(self, payload: bytes | list[float]) -> Outputs:
        name = quote(self._endpoint.model, safe="")
        if self._endpoint.protocol == "v1":
            call = v1_call(payload)
            return v1_outputs(self._server.infer(f"/v1/models/{name}:predict", call.body, call.headers)[0])
        call = v2_call(payload, self._tensor, binary=self._binary)
        return v2_outputs(*self._server.infer(f"/v2/models/{name}/infer", call.body, call.headers))

    def _check_ready(self) -> None:
        path = f"/{self._endpoint.protocol}/models/{quote(self._endpoint.model, safe='')}"
        value = self._server.describe(path)
        states = [s.get("state") for s in value.get("model_version_status", []) if isinstance(s, dict)]
        is_ready = "AVAILABLE" in states if states else str(value.get("ready", True)).lower() != "false"
        if not is_ready:
            raise ModelUnavailable(f"{self._server.name} has not loaded its model yet: wait, or look at its log")
        if self._endpoint.protocol == "v2":
            self._server.describe(f"{path}/ready")
            self._inputs = value.get("inputs") or []

    def _learn(self) -> None:
        """Take the input's name and number type from the metadata, and whether the server takes binary data."""
        given = self._inputs[0] if self._inputs and isinstance(self._inputs[0], dict) else {}
        kind = given.get("datatype")
        self._tensor = Tensor(str(given.get("name") or "input"), kind if kind in ("FP32", "FP64") else "FP64")
        self._binary = bool(self._endpoint.binary)
        if self._endpoint.binary is None:
            with contextlib.suppress(EdgeloopError):
                self._binary = "binary_tensor_data" in (self._server.describe("/v2").get("extensions") or [])


class _Server:
    """Kept-alive connections to one server; no proxy stands between the node and what is beside it."""

    def __init__(self, endpoint: Endpoint) -> None:
        from urllib3 import Timeout, connection_from_url

        self._endpoint = endpoint
        self.name = f"model server {endpoint.url} (model {endpoint.model})"
        self._prefix = urlsplit(endpoint.url).path.rstrip("/")
        timeout = Timeout(total=endpoint.timeout_seconds)
        self._pool = connection_from_url(endpoint.url, maxsize=8, timeout=timeout, retries=False)

    def describe(self, path: str) -> dict[str, Any]:
        """The JSON object at ``path``; {} where the body is something else (a bare 200 also says ready)."""
        status, body, _ = self._request("GET", path, None, {})
        if status in (400, 404, 501):
            raise UnloadableModel(f"{self.name} does not know it ({words_of(body)}): load it there, or mend endpoints")
        if status != 200:
            raise ModelUnavailable(f"{self.name} is not ready ({status}: {words_of(body)}): wait, or look at its log")
        try:
            value = json.loads(body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def infer(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, Mapping[str, str]]:
        """The answer to one input, and its headers."""
        status, said, found = self._request("POST", path, body, headers)
        if status == 200:
            return said, found
        words = f"{self.name} said {status}: {words_of(said)}"
        if status in _AWAY:
            raise ModelUnavailable(f"{words}: send it again later")
        if 400 <= status < 500:
            raise RefusedInput(f"{words}: mend the input")
        raise EndpointFailed(f"{words}: look at its log")

    def _request(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        from urllib3.exceptions import HTTPError, ProtocolError

        try:
            try:
                return self._once(method, path, body, headers)
            except ProtocolError:  # a kept connection that the server closed just now
                return self._once(method, path, body, headers)
        except (HTTPError, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise ModelUnavailable(f"{self.name} does not answer ({why}): start it, or mend endpoints") from error

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        answer = self._pool.urlopen(
            method, self._prefix + path, body=body, headers=headers, redirect=False, preload_content=False
        )
        with contextlib.closing(answer):  # a whole answer has given its connection back before
            data = answer.read(MAX_ANSWER + 1)
        if len(data) > MAX_ANSWER:
            raise MalformedAnswer(f"{self.name} answers over {MAX_ANSWER} bytes: is that a model server?")
        return answer.status, data, answer.headers
