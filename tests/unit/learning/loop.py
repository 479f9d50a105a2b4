"""A tabular service whose rounds can be played in a second: tables, registry and ledger, no servers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.clients.objects import MemoryStore
from edgeloop.clients.registry import Entry, MemoryRegistry, ModelVersion
from edgeloop.learning.evaluate import Evaluation, evaluate
from edgeloop.learning.rounds import Plan, Promotion, plan_round, promote
from edgeloop.learning.train import Candidate, train
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Label, LabelSource, Sample, Verdict
from edgeloop.samples.segments import to_row
from edgeloop.samples.service import Service
from edgeloop.samples.table import Tables
from edgeloop.store import FleetStore
from tests.unit.samples.make import START, label, regressor, sample

GATE = {"min_samples": 20, "slice_margin": 0.05, "resamples": 400}


def rater(**changes: Any) -> Service:
    """The regressor, quick to judge."""
    return regressor(**({"gate": GATE, "target": {"name": "y"}} | changes))


class Loop:
    """One service's world. ``right`` is the answer that a person would give."""

    def __init__(self, folder: Path, service: Service | None = None) -> None:
        self.service = service or rater()
        self.store = MemoryStore()
        self.tables = Tables("rater", self.store.table)
        self.registry = MemoryRegistry()
        self.url = f"sqlite:///{folder / 'fleet.db'}"
        self.fleet = FleetStore(self.url)

    @staticmethod
    def right(a: float, b: float) -> float:
        return 2 * a - b

    def collect(
        self,
        numbers: Sequence[int],
        *,
        spread: float = 10.0,
        source: LabelSource = "human",
        noise: float = 0.0,
        shift: float = 0.0,
        **changes: Any,
    ) -> list[Sample]:
        """Accepted, labelled samples; ``noise`` and ``shift`` are in the labels."""
        made: list[Sample] = []
        labels: list[Label] = []
        for number in numbers:
            rng = np.random.default_rng(number)
            a, b = (float(v) for v in rng.uniform(0, spread, 2))
            one = sample(number, payload=encode_features([a, b]), **changes)
            made.append(one)
            value = self.right(a, b) + rng.normal(0, noise) + shift
            labels.append(label(one, str(float(value)), source, seconds=number))
        self.accept(made)
        self.tables.merge("labels", [to_row(x) for x in labels], Label)
        return made

    def accept(self, samples: Sequence[Sample]) -> None:
        self.tables.merge("samples", [to_row(s) for s in samples], Sample)
        at = START + timedelta(days=1)
        verdicts = [Verdict(sample_id=s.sample_id, accepted=True, at=at) for s in samples]
        self.tables.merge("verdicts", [to_row(v) for v in verdicts], Verdict)

    def plan(self, **how: Any) -> Plan:
        return plan_round(self.store, self.tables, self.registry, self.fleet, self.service, **how)

    def train(self, plan: Plan) -> Candidate:
        return train(self.store, self.tables, self.service, plan.dataset, plan.base, plan.mode, plan.seed)

    def evaluate(self, plan: Plan, candidate: Candidate) -> Evaluation:
        return evaluate(self.store, self.tables, self.service, plan.dataset, candidate)

    def register(self, candidate: Candidate) -> ModelVersion:
        """As the library does, without plots and without a model."""
        known = self.registry.find("rater", candidate.key)
        if known:
            return known
        values: dict[str, Any] = {"params": {}, "metrics": {}, "description": "test"}
        entry = Entry(service="rater", key=candidate.key, dataset=candidate.dataset, layers=candidate.layers, **values)
        return self.registry.register(entry, None, Path())  # type: ignore[arg-type]

    def promote(self, plan: Plan, candidate: Candidate, evaluation: Evaluation, version: ModelVersion) -> Promotion:
        return promote(
            self.store,
            self.tables,
            self.registry,
            self.fleet,
            self.service,
            plan,
            candidate,
            evaluation,
            version,
        )

    def round(self) -> Promotion | None:
        """One round; None if it was skipped."""
        plan = self.plan()
        if plan.skip:
            return None
        candidate = self.train(plan)
        return self.promote(plan, candidate, self.evaluate(plan, candidate), self.register(candidate))

    def champion(self) -> str | None:
        found = self.registry.champion("rater")
        return found.version if found else None

    def held(self) -> set[str]:
        return {r["sample_id"] for r in self.tables.read("holds", ["sample_id"])}
