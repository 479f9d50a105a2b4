"""A service that sorts rows by their first feature, with a registry and a ledger, for the tests of pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.clients.registry import Entry, MemoryRegistry, ModelVersion
from edgeloop.learning.rounds import Plan, plan_round
from edgeloop.learning.train import Candidate, train
from edgeloop.samples.payloads import encode_features
from edgeloop.samples.records import Sample
from edgeloop.samples.splits import Split, split_of
from edgeloop.store import FleetStore
from tests.unit.learning.labels.world import World
from tests.unit.samples.make import classifier, label, sample


def numbers(split: Split, count: int, start: int = 0) -> list[int]:
    """The first sample numbers from ``start`` on whose group is of this split."""
    return [n for n in range(start, start + 20_000) if split_of(f"group-{n}", "sorter") == split][:count]


class Sorting(World):
    """``x`` is around 3 and ``y`` around 17; even numbers are x."""

    def __init__(self, folder: Path, **pseudo: Any) -> None:
        trainer = {"pipeline": "edgeloop.learning.tabular:logistic", "params": {"c": 100.0}}
        rules = {"pseudo": {"enabled": True} | pseudo}
        super().__init__(classifier(labels=["x", "y"], labelling=rules, trainer=trainer))
        self.registry = MemoryRegistry()
        self.fleet = FleetStore(f"sqlite:///{folder / 'fleet.db'}")

    @staticmethod
    def right(number: int) -> str:
        return "xy"[number % 2]

    def rows(self, which: Sequence[int], **changes: Any) -> list[Sample]:
        """Samples with these numbers."""
        spread = {n: np.random.default_rng(n).normal(size=2) for n in which}
        return [
            sample(n, "sorter", encode_features([3.0 + 14 * (n % 2) + spread[n][0], spread[n][1]]), **changes)
            for n in which
        ]

    def collect(self, which: Sequence[int], *, wrong: bool = False, **changes: Any) -> list[Sample]:
        """Accepted samples that a person labelled."""
        made = self.rows(which, **changes)
        self.add(made)
        self.label(*(label(s, self.right(n + wrong), seconds=n) for n, s in zip(which, made, strict=True)))
        return made

    def plan(self) -> Plan:
        return plan_round(self.store, self.tables, self.registry, self.fleet, self.service)

    def train(self, plan: Plan) -> Candidate:
        return train(self.store, self.tables, self.service, plan.dataset, plan.base, plan.mode, plan.seed)

    def crown(self, candidate: Candidate) -> ModelVersion:
        """Make a candidate the champion, as people may."""
        values: dict[str, Any] = {"params": {}, "metrics": {}, "description": "test"}
        entry = Entry(service="sorter", key=candidate.key, dataset=candidate.dataset, layers=candidate.layers, **values)
        version = self.registry.register(entry, None, Path())  # type: ignore[arg-type]
        self.registry.set_champion("sorter", version.version)
        return version
