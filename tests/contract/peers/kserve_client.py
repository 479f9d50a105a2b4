"""KServe's own client asks once: ``PYTHON -m …kserve_client URL v1|v2|binary SERVICE FILE``; prints outputs as JSON.

FILE holds a picture, or a feature row as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def v1_request(payload: bytes) -> dict[str, Any]:
    if payload[:1] == b"[":
        return {"instances": [json.loads(payload)]}
    return {"instances": [{"b64": base64.b64encode(payload).decode()}]}


def v2_request(service: str, payload: bytes, *, binary: bool) -> InferRequest:
    if payload[:1] == b"[":
        row = np.asarray([json.loads(payload)], dtype=np.float64)
        tensor = InferInput("input", list(row.shape), "FP64")
    else:
        data = payload if binary else base64.b64encode(payload)
        row = np.asarray([data], dtype=np.object_)
        tensor = InferInput("input", [1], "BYTES")
    tensor.set_data_from_numpy(row, binary_data=binary)
    parameters = {"binary_data_output": True} if binary else None
    return InferRequest(service, [tensor], request_id="7", parameters=parameters)


async def ask(url: str, protocol: str, service: str, payload: bytes) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol=protocol.replace("binary", "v2"), timeout=60)) as client:
        if protocol == "v1":
            found: dict[str, Any] = await client.infer(url, v1_request(payload), service)
            return found
        ready = await client.is_model_ready(url, service)
        answer = await client.infer(url, v2_request(service, payload, binary=protocol == "binary"), service)
        outputs = {output.name: output.as_numpy().reshape(-1).tolist() for output in answer.outputs}
        return {"id": answer.id, "model": answer.model_name, "ready": ready, **outputs}


def main(arguments: list[str]) -> None:
    url, protocol, service, path = arguments
    print(json.dumps(asyncio.run(ask(url, protocol, service, Path(path).read_bytes())), default=bytes.decode))


if __name__ == "__main__":
    main(sys.argv[1:])
