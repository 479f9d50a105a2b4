"""A probe travels with each release to each node, so its images are small."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from edgeloop.clients.models import Answer, Model, make_probe, run_probe, small_input
from edgeloop.clients.probes import SIDE, FailedProbe
from edgeloop.samples.payloads import decode_image, encode_features, image_size


def photo(width: int, height: int, form: str = "JPEG") -> bytes:
    ramp = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))
    noise = np.random.default_rng(0).normal(scale=8, size=(height, width, 3))
    sink = io.BytesIO()
    Image.fromarray(np.clip(ramp[..., None] + noise, 0, 255).astype(np.uint8)).save(sink, form)
    return sink.getvalue()


@pytest.mark.parametrize("payload", [photo(640, 480), photo(65, 20), photo(20, 65, "PNG")])
def test_a_photo_becomes_small_and_shows_the_same(payload: bytes) -> None:
    small = small_input(payload)
    assert image_size(small) == (SIDE, SIDE) and len(small) < 3000
    seen = np.abs(decode_image(small, 32).astype(int) - decode_image(payload, 32).astype(int))
    assert seen.mean() < 6
    assert small_input(small) == small


@pytest.mark.parametrize("payload", [photo(64, 64), photo(9, 9, "PNG"), encode_features([1.0, 2.0]), b"\xff\xd8\xffno"])
def test_what_is_small_or_no_image_stays(payload: bytes) -> None:
    assert small_input(payload) is payload


class _Bright:
    """Answers whether an image is bright."""

    labels: tuple[str, ...] | None = ("dark", "bright")
    backbone_digest: str | None = None

    def predict(self, payload: bytes) -> Answer:
        bright = decode_image(payload, 16).mean() > 100
        return Answer(("dark", "bright")[int(bright)], 1.0, (1.0 - bright, 0.0 + bright), None)


def test_a_probe_holds_answers_to_the_small_images() -> None:
    model: Model = _Bright()
    probe = make_probe(model, [photo(2000, 1500), photo(900, 900)])
    assert len(probe) < 8000 and len(json.loads(probe)["cases"]) == 2
    run_probe(model, probe, True)
    with pytest.raises(FailedProbe, match="probe input 0"):
        run_probe(model, probe.replace(b'"bright"', b'"dark"'), True)
