"""What a variant is worth beside the model that was trained: the same answers or not, its size, its time here."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.clients.model_types import Answer, Model
from edgeloop.errors import EdgeloopError
from edgeloop.samples.profiles import Profile
from edgeloop.samples.records import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Two numbers are the same answer if they differ by less than this share of the spread of the answers.
SAME_NUMBER = 0.01
#: By how much the first label leads the second in an answer that another CPU's arithmetic will not turn over.
CLEAR = 0.2
MOST_TIMED = 100


class OutOfTolerance(EdgeloopError):
    """A variant answers too differently from the trained model, or is too large."""


@dataclass(frozen=True)
class Agreement:
    """On how many inputs a variant answered as the trained model does."""

    compared: int
    same: int

    @property
    def share(self) -> float:
        """1.0 where nothing was compared."""
        return self.same / self.compared if self.compared else 1.0


@dataclass(frozen=True)
class Times:
    """Of one answer, in milliseconds, one at a time on this machine."""

    p50_ms: float
    p99_ms: float


class Recorded:
    """A model that runs elsewhere, by the probabilities [inputs, labels] that it gave there."""

    def __init__(self, labels: tuple[str, ...], inputs: Sequence[bytes], answers: NDArray[np.float32]) -> None:
        self.labels: tuple[str, ...] | None = labels
        self.backbone_digest: str | None = None
        self._names = labels
        self._answers: Mapping[str, list[float]] = {
            digest(payload): row for payload, row in zip(inputs, answers.astype(float).tolist(), strict=True)
        }

    def predict(self, payload: bytes) -> Answer:
        """What it answered; KeyError for an input that it was never given."""
        row = self._answers[digest(payload)]
        best = max(range(len(row)), key=row.__getitem__)
        return Answer(self._names[best], row[best], tuple(row), None)


def compare(trained: Model, variant: Model, payloads: Sequence[bytes]) -> Agreement:
    """Labels must be equal; numbers may differ by :data:`SAME_NUMBER` of the spread of the trained model's answers."""
    pairs = [(trained.predict(p).prediction, variant.predict(p).prediction) for p in payloads]
    if trained.labels is not None or not pairs:
        return Agreement(len(pairs), sum(a == b for a, b in pairs))
    values = np.asarray([[float(a), float(b)] for a, b in pairs])
    allowed = SAME_NUMBER * float(values[:, 0].std()) + 1e-6 * float(np.abs(values[:, 0]).max())
    return Agreement(len(pairs), int((np.abs(values[:, 0] - values[:, 1]) <= allowed).sum()))


def clear_inputs(model: Model, payloads: Sequence[bytes], count: int) -> list[bytes]:
    """The first ``count`` inputs that ``model`` answers clearly (:data:`CLEAR`); where they are few, the clearest."""
    margins = [_margin(model.predict(p)) for p in payloads]
    order = sorted(range(len(payloads)), key=lambda n: (-min(margins[n], CLEAR), n))
    return [payloads[n] for n in order[:count]]


def _margin(answer: Answer) -> float:
    """Lead of the first label over the second; a number has no second."""
    if answer.probabilities is None or len(answer.probabilities) < 2:
        return CLEAR
    first, second = sorted(answer.probabilities, reverse=True)[:2]
    return first - second


def time_answers(
    model: Model, payloads: Sequence[bytes], clock: Callable[[], float] = time.perf_counter
) -> Times | None:
    """Time the first answers one by one; None without inputs."""
    timed = payloads[:MOST_TIMED]
    for payload in timed[:1]:  # the first answer pays for what the others find ready
        model.predict(payload)
    seconds = []
    for payload in timed:
        began = clock()
        model.predict(payload)
        seconds.append(clock() - began)
    return times_of(np.asarray(seconds))


def times_of(seconds: NDArray[np.float64]) -> Times | None:
    """Quantiles of the times of single answers; None without any."""
    if not len(seconds):
        return None
    p50, p99 = (float(q) * 1000 for q in np.quantile(seconds, (0.5, 0.99)))
    return Times(p50, p99)


def check_tolerance(profile: Profile, service: str, size: int, agreed: Agreement) -> None:
    """Raise OutOfTolerance when a variant is not to be released."""
    if agreed.share < profile.min_agreement:
        raise OutOfTolerance(
            f"variant {profile.name} of {service} answers as the trained model on {agreed.same} of {agreed.compared}"
            f" inputs ({agreed.share:.2%}), min_agreement is {profile.min_agreement:.2%}: ask for a higher precision"
        )
    if profile.max_bytes is not None and size > profile.max_bytes:
        raise OutOfTolerance(
            f"variant {profile.name} of {service} has {size} bytes, max_bytes is {profile.max_bytes}: ask for a lower"
            f" precision or raise it"
        )


def machine() -> str:
    """What times were measured on: a figure in milliseconds says as much of it as of a model."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = ""
    named = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return f"{platform.machine()} {named[1].strip() if named else 'CPU'}, {os.cpu_count()} cores"[:128]
