"""What devices asked and what they were told, and whether that fits what arrived: the invariants, without a network."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Told:
    """One answer as a device got it; ``model`` is a digest over MQTT and a version over HTTP."""

    prediction: float | None = None
    model: str | None = None
    captured: bool = False
    error: str | None = None


@dataclass
class Asked:
    """One request: ``total`` is the sum of its features, of which every release makes a multiple of its own."""

    total: float
    told: list[Told] = field(default_factory=list)


class Ledger:
    """Requests by sample id. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked: dict[str, Asked] = {}
        self._strange: list[str] = []

    def ask(self, sample_id: str, total: float) -> None:
        """Write down a request before it is sent."""
        with self._lock:
            self._asked[sample_id] = Asked(total)

    def tell(self, sample_id: str | None, told: Told) -> None:
        """Write down an answer."""
        with self._lock:
            asked = self._asked.get(sample_id or "")
            if asked is None:
                self._strange.append(f"an answer to {sample_id}, which nobody asked: {told}")
            else:
                asked.told.append(told)

    def __len__(self) -> int:
        with self._lock:
            return len(self._asked)

    def asked(self) -> dict[str, Asked]:
        """All requests, with the answers so far."""
        with self._lock:
            return {name: Asked(one.total, list(one.told)) for name, one in self._asked.items()}

    def unanswered(self) -> list[str]:
        """Sample ids of requests without an answer."""
        with self._lock:
            return [name for name, one in self._asked.items() if not one.told]

    def strange(self) -> list[str]:
        """Answers that fit no request."""
        with self._lock:
            return list(self._strange)


def wrong_answers(asked: Mapping[str, Asked], factors: Mapping[str, float]) -> Iterator[str]:
    """Answers that are errors, or not what the named release says; ``factors`` has those that may be served."""
    for name, one in asked.items():
        for told in one.told:
            if told.error is not None:
                yield f"{name} was answered with an error: {told.error}"
            else:
                yield from _wrong(f"the answer to {name}", told.prediction, told.model, one.total, factors)


def _wrong(
    what: str, prediction: float | None, model: str | None, total: float, factors: Mapping[str, float]
) -> Iterator[str]:
    if model is None or model not in factors:
        yield f"{what} is by {model}, which may not be served"
        return
    right = factors[model] * total
    if prediction is None or abs(prediction - right) > 1e-3 * max(1.0, abs(right)):
        yield f"{what} is {prediction}, and {model} says {right} to {total}"


def wrong_rows(
    asked: Mapping[str, Asked], rows: Sequence[Mapping[str, Any]], factors: Mapping[str, float]
) -> Iterator[str]:
    """What is wrong with the samples table: acknowledged samples that are missing, rows twice, from nowhere, by
    releases that may not be served, or with another payload than was sent."""
    count = Counter(str(row["sample_id"]) for row in rows)
    acknowledged = {name for name, one in asked.items() if any(told.captured for told in one.told)}
    yield from (f"{name} was acknowledged and is not in the table" for name in sorted(acknowledged - set(count)))
    yield from (f"{name} is {number} times in the table" for name, number in count.items() if number > 1)
    for row in rows:
        what = f"the row {row['sample_id']}"
        if one := asked.get(str(row["sample_id"])):
            yield from _wrong(what, float(row["prediction"]), str(row["model_digest"]), one.total, factors)
        else:
            yield f"{what} was never sent: {row.get('device')} at {row.get('captured_at')}, {row.get('payload')!r}"


def some(found: Iterable[str], limit: int = 5) -> list[str]:
    """The first of many violations, and how many there are."""
    everything = list(found)
    rest = len(everything) - limit
    return everything[:limit] + ([f"... and {rest} more"] if rest > 0 else [])
