"""Whole HTTP requests as bytes, so that a client under measurement does nothing but send them."""

from __future__ import annotations

import base64
import json
import struct


def v2_binary(model: str, payload: bytes) -> bytes:
    """Open Inference Protocol with the binary-data extension: one BYTES element."""
    element = struct.pack("<I", len(payload)) + payload
    tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(element)}}
    head = json.dumps({"id": "1", "inputs": [tensor]}).encode()
    more = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
    return _post(f"/v2/models/{model}/infer", head + element, more)


def v2_base64(model: str, payload: bytes) -> bytes:
    """Open Inference Protocol as JSON: one BYTES element in base64, which is how KServe's server takes a picture."""
    data = [base64.b64encode(payload).decode()]
    tensor = {"name": "input", "shape": [1], "datatype": "BYTES", "data": data}
    body = json.dumps({"id": "1", "inputs": [tensor]}).encode()
    return _post(f"/v2/models/{model}/infer", body, {"Content-Type": "application/json"})


def v1_base64(model: str, payload: bytes) -> bytes:
    """V1 of TF Serving and KServe: one base64 instance."""
    body = json.dumps({"instances": [{"b64": base64.b64encode(payload).decode()}]}).encode()
    return _post(f"/v1/models/{model}:predict", body, {"Content-Type": "application/json"})


def _post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
