"""Prediction as TF Serving and KServe V1 have it: rows under ``instances``, or columns under ``inputs``.

Source: https://www.tensorflow.org/tfx/serving/api_rest (Predict API; "Encoding binary values").
"""

from __future__ import annotations

import json
import math
from functools import partial
from typing import TYPE_CHECKING, Any

from edgeloop.edge.http.messages import MalformedRequest, Reply, Request, as_json, parse_object, short
from edgeloop.edge.http.models import DEFAULT_OUTPUTS, answers, column, read, takes_images
from edgeloop.edge.http.tensors import INPUT, decode64
from edgeloop.samples.payloads import encode_features

if TYPE_CHECKING:
    from edgeloop.edge.http.app import Site
    from edgeloop.edge.runtime import Loaded

_SIGNATURE = "serving_default"


def predict(site: Site, request: Request) -> Reply:
    """``POST /v1/models/{service}:predict``: rows are answered with ``predictions``, columns with ``outputs``."""
    loaded, (payloads, by_column) = read(site, request, _payloads)
    results = answers(site, request, loaded, payloads)
    get = partial(column, loaded=loaded, results=results)
    if by_column:
        return as_json({"outputs": {n: values for n in DEFAULT_OUTPUTS if (values := get(n)) is not None}})
    return as_json(
        {
            "predictions": get("prediction"),
            "confidences": [r.confidence for r in results],
            "sample_ids": get("sample_id"),
        }
    )


def _payloads(loaded: Loaded, request: Request) -> tuple[list[bytes], bool]:
    """Returns the payloads, and whether they came in columns."""
    body = parse_object(request.body)
    signature = body.get("signature_name", _SIGNATURE)
    if signature != _SIGNATURE:
        raise MalformedRequest(f"signature_name is {short(signature)}: leave it out or send {_SIGNATURE}")
    by_column = "inputs" in body
    if by_column == ("instances" in body):
        raise MalformedRequest(
            'the body needs one of "instances" and "inputs": send {"instances": [{"b64": …}]} or a list of feature rows'
        )
    instances = _rows_of(loaded, body["inputs"]) if by_column else body["instances"]
    if not isinstance(instances, list) or not instances:
        raise MalformedRequest(f'"instances" is {short(instances)}: send a list with at least one instance')
    return [_payload(loaded, number, value) for number, value in enumerate(instances)], by_column


def _rows_of(loaded: Loaded, inputs: object) -> object:
    """The instances in what TF Serving calls columns: one tensor, bare or by name, or a list per feature."""
    if not isinstance(inputs, dict):
        return inputs
    names = loaded.config.feature_names
    if set(inputs) == {INPUT} and names != [INPUT]:
        return inputs[INPUT]
    if takes_images(loaded) or set(inputs) != set(names):
        expected = ", ".join(names) or "the images"
        raise MalformedRequest(f'"inputs" has {short(sorted(inputs))}: send a list, {{"{INPUT}": …}}, or {expected}')
    columns = [_column(name, inputs[name]) for name in names]
    if len({len(values) for values in columns}) > 1:
        raise MalformedRequest('the columns of "inputs" differ in length: send as many values of each feature')
    return [list(row) for row in zip(*columns, strict=True)]


def _column(name: str, values: object) -> list[Any]:
    if not isinstance(values, list):
        raise MalformedRequest(f'column {name} of "inputs" is {short(values)}: send a list of numbers')
    return [v[0] if isinstance(v, list) and len(v) == 1 else v for v in values]


def _payload(loaded: Loaded, number: int, instance: object) -> bytes:
    where = f"instance {number}"
    names = loaded.config.feature_names
    if isinstance(instance, dict) and set(instance) == {INPUT} and INPUT not in names:
        instance = instance[INPUT]
    if takes_images(loaded) or (isinstance(instance, dict) and set(instance) == {"b64"} and "b64" not in names):
        return _bytes(instance, where)
    if isinstance(instance, dict):
        return json.dumps(instance).encode()
    return _row(instance, where)


def _bytes(instance: object, where: str) -> bytes:
    if not isinstance(instance, dict):  # a bare string is text for TF Serving, not base64
        raise MalformedRequest(f'{where} is {short(instance)}: send {{"b64": …}}, the image\'s bytes in base64')
    return decode64(instance, where)


def _row(values: object, where: str) -> bytes:
    if not isinstance(values, list):
        raise MalformedRequest(f"{where} is {short(values)}: send a list of numbers, or an object by feature name")
    for number, value in enumerate(values):
        if type(value) not in (int, float):
            raise MalformedRequest(f"{where} has {short(value)} at {number}: send numbers")
    try:
        row = list(map(float, values))
    except OverflowError as error:
        raise MalformedRequest(f"{where} has a number that is out of range: send finite numbers") from error
    if not all(map(math.isfinite, row)):
        raise MalformedRequest(f"{where} has a number that is not finite: send finite numbers")
    return encode_features(row)
