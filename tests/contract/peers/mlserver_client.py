"""MLServer's own client, of ``mlserver infer``, asks once: ``PYTHON -m …mlserver_client URL v2|binary SERVICE FILE``.

FILE holds a picture, or a feature row as JSON; prints the outputs that the model's metadata names as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mlserver.batch_processing import TritonRequest, httpclient, send_requests
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, MetadataModelResponse, RequestOutput


def request(payload: bytes, outputs: list[str], *, binary: bool) -> TritonRequest:
    if payload[:1] == b"[":
        given = NumpyCodec.encode_input("input", np.asarray([json.loads(payload)], dtype=np.float64))
    else:
        given = Base64Codec.encode_input("input", [payload], use_bytes=False)
    wanted = [RequestOutput(name=name) for name in outputs]
    made = TritonRequest.from_inference_request(InferenceRequest(id="7", inputs=[given], outputs=wanted), binary)
    if binary and payload[:1] != b"[":  # its own requests are JSON at first, in which no bytes can stand
        made.inputs[0].set_data_from_numpy(np.asarray([[payload]], dtype=np.object_), binary_data=True)
    return made


async def ask(url: str, service: str, payload: bytes, *, binary: bool) -> dict[str, Any]:
    async with httpclient.InferenceServerClient(url.removeprefix("http://")) as client:
        ready = await client.is_server_ready() and await client.is_model_ready(service)
        about = MetadataModelResponse.model_validate(await client.get_model_metadata(service))
        names = [output.name for output in about.outputs or []]
        result = await send_requests(service, client, request(payload, names, binary=binary), {}, 1, 0)
    answer = result.get_response()
    outputs = {name: plain(result.as_numpy(name)) for name in names}
    return {"id": answer["id"], "model": answer["model_name"], "ready": ready, **outputs}


def plain(values: Any) -> list[Any]:
    return [v.decode() if isinstance(v, bytes) else v for v in values.reshape(-1).tolist()]


def main(arguments: list[str]) -> None:
    url, protocol, service, path = arguments
    print(json.dumps(asyncio.run(ask(url, service, Path(path).read_bytes(), binary=protocol == "binary"))))


if __name__ == "__main__":
    main(sys.argv[1:])
