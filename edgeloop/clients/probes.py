"""The self-check of a release: what the model answered where it was made must be what it answers where it serves."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence

import numpy as np

from edgeloop.clients.model_types import Model
from edgeloop.errors import EdgeloopError
from edgeloop.samples.payloads import UndecodablePayload, decode_image, image_size

#: Side in pixels of the images that a model is probed with. Each release brings its probe to each node, and a photo of
#: a camera would outweigh a head many times; what a model makes of a small one shows as well that it runs as it should.
SIDE = 64


class FailedProbe(EdgeloopError):
    """A freshly loaded model answers its probe inputs differently from what the release says."""


def small_input(payload: bytes) -> bytes:
    """An image of at most :data:`SIDE` pixels a side, as JPEG of one or two kilobytes; any other input as it is."""
    try:
        if max(image_size(payload)) <= SIDE:
            return payload
        pixels = decode_image(payload, SIDE)
    except UndecodablePayload:
        return payload
    from PIL import Image

    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=85, optimize=True)
    return sink.getvalue()


def make_probe(model: Model, payloads: Sequence[bytes]) -> bytes:
    """Record what ``model`` answers to ``payloads``, images made small: the ``probe`` layer that a node checks itself
    against."""
    small = [small_input(payload) for payload in payloads]
    cases = [{"payload": base64.b64encode(p).decode(), "prediction": model.predict(p).prediction} for p in small]
    return json.dumps({"cases": cases}, sort_keys=True).encode()


def run_probe(model: Model, probe: bytes, classifier: bool) -> None:
    """Compare ``model`` with the answers in ``probe``; a number may differ by one part in a thousand.

    Raises:
        FailedProbe: an answer differs; it names the case.
    """
    for number, case in enumerate(json.loads(probe)["cases"]):
        got = model.predict(base64.b64decode(case["payload"])).prediction
        want = case["prediction"]
        same = got == want if classifier else np.isclose(float(got), float(want), rtol=1e-3, atol=1e-3)
        if not same:
            raise FailedProbe(f"probe input {number} gave {got}, the release says {want}: release it again")
