"""Releases that come during the run, genuine and tampered with, published as an approver and an attacker do."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

import numpy as np

from edgeloop.clients.models import load_model, make_probe
from edgeloop.clients.objects import ObjectStore
from edgeloop.errors import EdgeloopError
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import digest
from edgeloop.samples.releases import Layer, Release, Role, blob_key, release_key
from edgeloop.samples.service import NodeConfig
from tests.e2e.edge_faults.signed import SignedChannel

_log = logging.getLogger(__name__)


def multiplier(factor: float) -> bytes:
    """An ONNX model that answers ``factor * (a + b + c)``."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LinearRegression

    rows = np.eye(3, dtype=np.float32)
    fitted = LinearRegression(fit_intercept=False).fit(rows, factor * rows.sum(axis=1))
    return bytes(to_onnx(fitted, rows[:1]).SerializeToString())


def flipped(model: bytes, factor: float) -> bytes:
    """The model with one bit of its first weight flipped: it loads, and answers wrongly."""
    place = model.find(np.float32(factor).tobytes())
    place = len(model) // 2 if place < 0 else place + 2
    return model[:place] + bytes([model[place] ^ 0x20]) + model[place + 1 :]


class Publisher:
    """Publishes in a thread of its own, one thing after the other, each again until the store has taken it."""

    def __init__(self, store: ObjectStore, channel: SignedChannel, config: NodeConfig, nudge: Callable[[], None]):
        self.factors: dict[str, float] = {}
        """Releases that may be served: by digest, and by version, what they multiply with."""
        self.latest: Release | None = None
        self.tampered: dict[str, str] = {}
        """Releases that must never be served, and what was done to them."""
        self._store = store
        self._channel = channel
        self._config = config
        self._nudge = nudge
        self._number = 0
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def good(self) -> None:
        """Publish a genuine release and let the ring run it."""
        self._jobs.put(self._good)

    def damaged(self, how: str, damage: Callable[[bytes, float], bytes]) -> None:
        """Approve a release and let the ring run it, with a model in the store that somebody has damaged."""
        self._jobs.put(lambda: self._damaged(how, damage))

    def swapped(self) -> None:
        """Approve a release and let the ring run it, with another's model and self-check under its blobs' names."""
        self._jobs.put(self._swapped)

    def attack(self, variant: int) -> None:
        """Point the ring to a release that nobody approved, as one who can write to the store but has no key."""
        self._jobs.put(lambda: self._attack(variant))

    def heal(self) -> None:
        """Take an attacker's files away, then publish a genuine release."""
        self._jobs.put(self._channel.heal)
        self.good()

    def finish(self, seconds: float = 60) -> bool:
        """Whether everything asked for was published within ``seconds``; nothing more can be asked for."""
        self._jobs.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            while not self._done(job):
                threading.Event().wait(0.2)

    def _done(self, job: Callable[[], None]) -> bool:
        try:
            job()
        except EdgeloopError as error:
            _log.info("published again later: %s", error)
            return False
        return True

    def _next(self) -> float:
        self._number += 1
        return float(self._number)

    def _good(self) -> None:
        factor = self._next()
        release = self._upload(multiplier(factor), str(self._number))
        self.factors |= {release.digest: factor, release.version: factor}
        self._channel.approve(release)
        self._channel.point(release)
        self.latest = release
        self._nudge()

    def _damaged(self, how: str, damage: Callable[[bytes, float], bytes]) -> None:
        factor = self._next()
        model = multiplier(factor)
        release = self._upload(model, f"{self._number}-{how}")
        self.tampered[release.digest] = how
        self._store.put(blob_key(digest(model)), damage(model, factor))
        self._channel.approve(release)
        self._channel.point(release)
        self._nudge()

    def _swapped(self) -> None:
        factor = self._next()
        release = self._upload(multiplier(factor), f"{self._number}-swapped")
        self.tampered[release.digest] = "swapped"
        for role, data in self._parts(multiplier(factor + 0.5)).items():
            layer = release.layer(role)
            assert layer is not None
            self._store.put(blob_key(layer.digest), data)
        self._channel.approve(release)
        self._channel.point(release)
        self._nudge()

    def _attack(self, variant: int) -> None:
        factor = self._next()
        release = self._upload(multiplier(factor), f"{self._number}-unapproved")
        self.tampered[release.digest] = self._channel.attack(release, variant)
        self._nudge()

    def _parts(self, model: bytes) -> dict[Role, bytes]:
        config = self._config.model_dump_json().encode()
        loaded = load_model(self._config, {"model": model, "config": config}, None)
        return {"model": model, "config": config, "probe": make_probe(loaded, [encode_features([1.0, 2.0, 3.0])])}

    def _upload(self, model: bytes, version: str) -> Release:
        parts = self._parts(model)
        for data in parts.values():
            self._store.create(blob_key(digest(data)), data)
        layers = [
            Layer(role=role, digest=digest(data), size=len(data), media_type="application/octet-stream")
            for role, data in parts.items()
        ]
        release = Release(service=self._config.service, version=version, run_id="r", dataset="d", layers=layers)
        self._store.put(release_key(self._config.service, release.digest), release.to_bytes())
        return release
