"""Records and services that the tests of several rooms build alike."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from PIL import Image

from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, LabelSource, Sample, digest, sample_id
from edgeloop.samples.service import Service

START = datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


def _made(values: dict[str, Any]) -> Service:
    """Rings do not soak unless a test says so: nothing here waits for five minutes."""
    return Service.model_validate({**values, "rollout": {"soak_seconds": 0, **values.get("rollout", {})}})


def regressor(**changes: Any) -> Service:
    """A tabular regressor ``rater`` of two features, a between 0 and 10 and b without a range."""
    values: dict[str, Any] = {
        "version": 1,
        "name": "rater",
        "kind": "tabular-regressor",
        "description": "rates",
        "features": [{"name": "a", "min": 0, "max": 10}, {"name": "b"}],
        "target": {"name": "y", "min": 0, "max": 10},
    }
    return _made(values | changes)


def classifier(**changes: Any) -> Service:
    """A tabular classifier ``sorter`` of two features and three labels."""
    values: dict[str, Any] = {
        "version": 1,
        "name": "sorter",
        "kind": "tabular-classifier",
        "description": "sorts",
        "features": [{"name": "a"}, {"name": "b"}],
        "labels": ["x", "y", "z"],
        "trainer": {"pipeline": "edgeloop.learning.tabular:logistic", "params": {}},
    }
    return _made(values | changes)


def looker(**changes: Any) -> Service:
    """An image classifier ``looker`` of two labels."""
    values: dict[str, Any] = {
        "version": 1,
        "name": "looker",
        "kind": "image-classifier",
        "description": "looks",
        "image": {"size": 32},
        "labels": ["cat", "dog"],
        "trainer": {"backbone": "some.tflite"},
    }
    return _made(values | changes)


def picture(seed: int = 0, size: tuple[int, int] = (40, 30), kind: str = "JPEG") -> bytes:
    """A noisy picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind)


def plain_picture(level: int, size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture of one grey level: no contrast."""
    return encoded(Image.new("RGB", size, (level, level, level)), "PNG")


def encoded(image: Image.Image, kind: str) -> bytes:
    """The bytes of a picture."""
    sink = io.BytesIO()
    image.save(sink, kind)
    return sink.getvalue()


def sample(number: int = 0, service: str = "rater", payload: bytes | None = None, **changes: Any) -> Sample:
    """The sample with this number; its payload is the feature row (number mod 10, 1)."""
    data = encode_features([number % 10, 1]) if payload is None else payload
    at = START + timedelta(seconds=number)
    values: dict[str, Any] = {
        "sample_id": sample_id(service, "device-1", at, data),
        "service": service,
        "device": "device-1",
        "node": "edge-1",
        "captured_at": at,
        "payload": data,
        "model_digest": "none",
        "prediction": "5.0",
        "selected_by": "audit",
        "selection_probability": 0.5,
        "group": f"group-{number}",
    }
    return Sample.model_validate(values | changes)


def withheld(number: int, features: Sequence[float], backbone: str, service: str = "looker", **changes: Any) -> Sample:
    """A sample of ``picture(number)`` whose raw input stayed at its node."""
    seen = picture(number)
    values: dict[str, Any] = {
        "sample_id": sample_id(service, "device-1", START + timedelta(seconds=number), seen),
        "payload": b"",
        "payload_digest": digest(seen),
        "embedding": np.asarray(features, "<f2").tobytes(),
        "backbone_digest": backbone,
        "prediction": "cat",
    }
    return sample(number, service, **(values | changes))


def label(of: Sample, text: str, source: LabelSource = "human", seconds: float = 0, **changes: Any) -> Label:
    """A label of a sample, given ``seconds`` after START."""
    values: dict[str, Any] = {
        "sample_id": of.sample_id,
        "service": of.service,
        "label": text,
        "source": source,
        "by": "someone",
        "at": START + timedelta(seconds=seconds),
    }
    return Label.model_validate(values | changes)
