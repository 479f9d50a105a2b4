"""Answers, policies and clocks for the tests of what a node sends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.clients.models import Answer
from edgeloop.edge.selection.selector import Choice, Selectors
from edgeloop.samples.selection import Selection
from edgeloop.samples.service import Feature, ImageInput, NodeConfig

SERVICE = "looker"


def config(**selection: Any) -> NodeConfig:
    """An image classifier with this selection."""
    return NodeConfig(
        service=SERVICE,
        kind="image-classifier",
        image=ImageInput(size=32),
        labels=["cat", "dog"],
        selection=Selection.model_validate(selection),
    )


def rows(**selection: Any) -> NodeConfig:
    """A tabular classifier of two features, the first between 0 and 10."""
    features = [Feature(name="a", min=0, max=10), Feature(name="b")]
    policy = Selection.model_validate(selection)
    return NodeConfig(
        service=SERVICE, kind="tabular-classifier", features=features, labels=["x", "y"], selection=policy
    )


def answer(
    confidence: float = 0.9,
    *,
    embedding: list[float] | None = None,
    image: NDArray[np.uint8] | None = None,
    boxes: tuple[float, ...] | None = None,
) -> Answer:
    """``cat`` with this confidence, ``dog`` with the rest."""
    vector = None if embedding is None else np.array(embedding, np.float16)
    return Answer("cat", confidence, (confidence, 1 - confidence), vector, image, boxes)


def unsure(below: float = 0.5) -> list[dict[str, Any]]:
    """The rule ``threshold``."""
    return [{"rule": "threshold", "below": below}]


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Chooser:
    """Selectors that are asked about one service, with numbers for sample ids."""

    def __init__(self, folder: Path, salt: bytes = b"salt", clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.selectors = Selectors(folder, salt, clock=self.clock, wall=self.clock)
        self.tally: Counter[str] = Counter()
        """Answers by what selected them, or by why they were dropped."""
        self._asked = 0

    def ask(self, policy: NodeConfig, given: Answer, size: int = 1000, payload: bytes = b"") -> Choice:
        """Choose the next sample."""
        self._asked += 1
        choice = self.selectors.choose(policy, f"{self._asked:064x}", payload, given, size)
        self.tally[choice.selected_by or choice.dropped or ""] += 1
        return choice

    @property
    def starved(self) -> int:
        return self.selectors.starved(SERVICE)
