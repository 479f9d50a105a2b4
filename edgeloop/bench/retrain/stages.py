"""One retrain through the functions that the flow's tasks call, each stage timed by the clock on the wall."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import TypeVar

from edgeloop.bench.retrain.counting import CountingStore
from edgeloop.bootstrap import App
from edgeloop.learning.evaluate import evaluate
from edgeloop.learning.register import register
from edgeloop.learning.rounds import plan_round
from edgeloop.learning.train import train
from edgeloop.samples.service import Service

T = TypeVar("T")
STAGES = ("plan", "train", "evaluate", "register")


class Retrain:
    """What one retrain made, and by stage how long it took, on the wall and on cores, and what it read of the store."""

    def __init__(self, app: App, service: Service, seed: int, say: Callable[[str], None] = lambda _: None) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.reads: dict[str, int] = {}
        self.read_bytes: dict[str, int] = {}
        self._app, self._service = app, service
        self._store = store = CountingStore(app.store)
        tables, fleet = app.tables(service.name), app.fleet
        plan = self._timed("plan", lambda: plan_round(store, tables, app.registry, fleet, service, "head", seed))
        self.candidate = made = self._timed(
            "train", lambda: train(store, tables, service, plan.dataset, plan.base, plan.mode, seed, say)
        )
        self.evaluation = judged = self._timed(
            "evaluate", lambda: evaluate(store, tables, service, plan.dataset, made, fleet)
        )
        self._version = self._timed(
            "register",
            lambda: register(store, tables, app.registry, service, plan.dataset, made, judged, "bench"),
        )

    def make_champion(self) -> None:
        """Let the candidate be the champion that the next retrain starts from, whatever the gate says."""
        self._app.registry.set_champion(self._service.name, self._version.version)

    def _timed(self, stage: str, work: Callable[[], T]) -> T:
        reads, size = self._store.reads, self._store.read_bytes
        began, used = time.perf_counter(), time.process_time()
        with redirect_stdout(sys.stderr):  # MLflow tells people of its runs; the result alone goes to stdout
            made = work()
        self.seconds[stage] = time.perf_counter() - began
        self.cpu[stage] = time.process_time() - used
        self.reads[stage] = self._store.reads - reads
        self.read_bytes[stage] = self._store.read_bytes - size
        return made
