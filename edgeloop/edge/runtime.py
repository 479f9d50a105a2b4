"""The models in service: each is replaced between two requests, and a new one is on trial at first.

A request keeps the release it began with until it is answered, so a switch frees nothing that is in use.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

from edgeloop.clients.lending import Lender, usable_cores
from edgeloop.clients.models import Answer, MalformedAnswer, Model, ModelUnavailable, RemoteModel
from edgeloop.errors import EdgeloopError, Unavailable
from edgeloop.samples.payloads import UndecodablePayload
from edgeloop.samples.service import NodeConfig

#: A switched-to release is on trial for this many answers; it falls when more than half of them fail.
TRIAL = 20
Verdict = Literal["passed", "lost"]
#: After its trial a release falls when more than half of this many last answers failed.
WINDOW = 50


class NotLoaded(EdgeloopError):
    """No release of this service is loaded yet."""


class ModelFailed(EdgeloopError):
    """The model failed on an input that should be fine."""


class NoTurn(Unavailable):
    """An input waited too long for its turn: the models are too slow for what comes, or one hangs."""


@dataclass
class Loaded:
    """One release in memory."""

    release: str
    version: str
    config: NodeConfig
    model: Model
    answers: int = 0
    """Answers of the trial,"""
    failures: int = 0
    """and how many of them failed."""
    on_trial: bool = False
    lost: bool = False
    """It failed on most of its inputs; said once."""
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW), repr=False)
    """Whether each of the last answers after the trial failed."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, failed: bool) -> Verdict | None:
        """Count an answer; says once that the trial is passed, or that it is lost or most inputs fail later."""
        with self.lock:
            was_on_trial, was_lost = self.on_trial, self.lost
            self.lost = self._has_lost(failed) or was_lost
            if self.lost:
                return None if was_lost else "lost"
            return "passed" if was_on_trial and not self.on_trial else None

    def _has_lost(self, failed: bool) -> bool:
        if not self.on_trial:
            self.recent.append(failed)
            return failed and sum(self.recent) > WINDOW // 2
        self.answers += 1
        self.failures += failed
        lost = self.failures > TRIAL // 2
        self.on_trial = not lost and self.answers < TRIAL
        return lost


class Runtime:
    """Serves one release per service, in the threads that ask: as many at once as there are cores, in their order.

    Models on servers beside the node take no turn: they wait for a network, not for a core.
    """

    def __init__(self, threads: int | None = None, *, wait_seconds: float = 30.0) -> None:
        self._loaded: dict[str, Loaded] = {}
        self._turns = Lender(range(threads or usable_cores()))
        self._wait = wait_seconds
        self.on_lost_trial: Callable[[str, str], None] = lambda service, release: None
        """Called (service, release digest) in a predicting thread when a release fails on most of its inputs."""
        self.on_passed_trial: Callable[[str, str], None] = lambda service, release: None
        """Called (service, release digest) in a predicting thread when a release has passed its trial."""

    def loaded(self, service: str) -> Loaded | None:
        """What serves now."""
        return self._loaded.get(service)

    def switch(self, service: str, loaded: Loaded) -> Loaded | None:
        """Serve ``loaded`` from the next request on; returns what served before."""
        before = self._loaded.get(service)
        self._loaded[service] = loaded
        return before

    def unload(self, service: str) -> Loaded | None:
        """Serve nothing for ``service`` from the next request on; returns what served before."""
        return self._loaded.pop(service, None)

    def predict(self, service: str, payload: bytes, loaded: Loaded | None = None) -> tuple[Answer, Loaded]:
        """Answer in this thread with ``loaded``, for which the payload was made, or with what serves now.

        Raises:
            NotLoaded: nothing serves yet.
            UndecodablePayload: the payload is no input of this service.
            ModelUnavailable: the server that has the model is away; no fault of the release.
            NoTurn: no core came free in time.
            ModelFailed: the model failed, or answered what is no number.
        """
        loaded = loaded or self._loaded.get(service)
        if loaded is None:
            raise NotLoaded(f"service {service} has no release on this node yet: roll one out to its ring")
        try:
            with self._turn(loaded.model):
                answer = self._predict(service, loaded, payload)
        except TimeoutError as error:
            raise NoTurn(f"service {service} is busy for {self._wait:g} s: send less, or restart the node") from error
        return answer, loaded

    def _turn(self, model: Model) -> AbstractContextManager[int]:
        return nullcontext(0) if isinstance(model, RemoteModel) else self._turns.lend(self._wait)

    def _predict(self, service: str, loaded: Loaded, payload: bytes) -> Answer:
        try:
            answer = loaded.model.predict(payload)
            _check_finite(answer, loaded.model.labels)
        except (UndecodablePayload, ModelUnavailable):
            raise
        except Exception as error:
            self._count(service, loaded, failed=True)
            raise ModelFailed(
                f"release {loaded.release} failed on an input ({str(error)[:200]}): roll out another"
            ) from error
        self._count(service, loaded, failed=False)
        return answer

    def _count(self, service: str, loaded: Loaded, *, failed: bool) -> None:
        verdict = loaded.count(failed)
        if verdict == "lost":
            self.on_lost_trial(service, loaded.release)
        elif verdict == "passed":
            self.on_passed_trial(service, loaded.release)

    def close(self) -> None:
        """Serve nothing any more; requests that are in a model finish with it."""
        self._loaded.clear()


def _check_finite(answer: Answer, labels: tuple[str, ...] | None) -> None:
    """Raise MalformedAnswer for NaN and infinity: they are no answer, and nothing can be chosen or counted by them."""
    numbers = [answer.value] if labels is None else [answer.confidence or 0.0]
    if not all(map(math.isfinite, (*numbers, *(answer.probabilities or ()), *(answer.boxes or ())))):
        raise MalformedAnswer(f"the answer {answer.prediction[:80]} or its probability is not finite: mend the model")
