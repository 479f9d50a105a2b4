"""The models in service: each is replaced between two requests, and a new one is on trial at first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from edgeloop.clients.models import Answer, Model
from edgeloop.errors import EdgeloopError
from edgeloop.samples.payloads import UndecodablePayload
from edgeloop.samples.service import NodeConfig

#: A switched-to release is on trial for this many answers; it falls when more than half of them fail.
TRIAL = 20


class NotLoaded(EdgeloopError):
    """No release of this service is loaded yet."""


class ModelFailed(EdgeloopError):
    """The model failed on an input that should be fine."""


@dataclass
class Loaded:
    """One release in memory."""

    release: str
    version: str
    config: NodeConfig
    model: Model
    answers: int = 0
    failures: int = 0
    on_trial: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, failed: bool) -> bool:
        """Count an answer; True once, when the trial is lost."""
        with self.lock:
            if not self.on_trial:
                return False
            self.answers += 1
            self.failures += failed
            lost = self.failures > TRIAL // 2
            self.on_trial = not lost and self.answers < TRIAL
            return lost


class Runtime:
    """Serves one release per service from a small pool: LiteRT interpreters belong to a thread each."""

    def __init__(self, threads: int | None = None) -> None:
        self._loaded: dict[str, Loaded] = {}
        self._pool = ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1), "predict")
        self.on_lost_trial: Callable[[str, str], None] = lambda service, release: None
        """Called (service, release digest) in a predicting thread when a release loses its trial."""

    def loaded(self, service: str) -> Loaded | None:
        """What serves now."""
        return self._loaded.get(service)

    def switch(self, service: str, loaded: Loaded) -> Loaded | None:
        """Serve ``loaded`` from the next request on; returns what served before."""
        before = self._loaded.get(service)
        self._loaded[service] = loaded
        return before

    def predict(self, service: str, payload: bytes) -> tuple[Answer, Loaded]:
        """Answer with what serves now.

        Raises:
            NotLoaded: nothing serves yet.
            UndecodablePayload: the payload is no input of this service.
            ModelFailed: the model failed.
        """
        loaded = self._loaded.get(service)
        if loaded is None:
            raise NotLoaded(f"service {service} has no release on this node yet: roll one out to its ring")
        return self._pool.submit(self._predict, loaded, payload).result(), loaded

    def _predict(self, loaded: Loaded, payload: bytes) -> Answer:
        try:
            answer = loaded.model.predict(payload)
        except UndecodablePayload:
            raise
        except Exception as error:
            if loaded.count(failed=True):
                self.on_lost_trial(loaded.config.service, loaded.release)
            raise ModelFailed(
                f"release {loaded.release} failed on an input ({str(error)[:200]}): roll out another"
            ) from error
        loaded.count(failed=False)
        return answer

    def close(self) -> None:
        """Finish what runs and stop."""
        self._pool.shutdown()
