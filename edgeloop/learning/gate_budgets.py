"""What a candidate may cost, and whether its export is the model that was trained: measured on the exported files.

A gain in accuracy says nothing of these, and a node finds them out too late. Time is compared with the champion's on
the same machine in the same minute, since a figure in milliseconds says more of the machine than of the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from edgeloop.clients.model_types import Model
from edgeloop.samples.judging import Gate

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Samples that are timed at most, and the fewest that a budget judges on.
MOST_TIMED, LEAST_TIMED = 50, 10
#: Two numbers are the same answer if they differ by less than this share of the spread of the answers.
SAME_NUMBER = 0.01


class Latency(BaseModel):
    """Median time of one answer, in milliseconds, on the machine that judged."""

    samples: int
    candidate_ms: float
    champion_ms: float | None = None

    @property
    def ratio(self) -> float | None:
        """The candidate's time as a multiple of the champion's."""
        return self.candidate_ms / self.champion_ms if self.champion_ms else None


class Agreement(BaseModel):
    """Share of the gate samples on which the exported model answers as the trained one."""

    samples: int
    share: float
    trained: Literal["pipeline", "features", "keras"] = "pipeline"
    """What the export is compared with: the scikit-learn pipeline; the features that the head was fitted on, of which
    the exported model makes its own from the raw input; or the Keras backbone that was trained."""

    @property
    def different(self) -> int:
        """Samples that the two answer differently."""
        return round(self.samples * (1 - self.share))


class Timed(BaseModel):
    """How long answers took, and what they were."""

    latency: Latency
    answers: list[str]
    """The candidate's, to the inputs that were timed, in order."""


def measure_latency(
    candidate: Model,
    champion: Model | None,
    payloads: Sequence[bytes],
    clock: Callable[[], float] = time.perf_counter,
) -> Timed | None:
    """Time both models in turns on the first raw inputs, so that a busy machine slows both; None without inputs."""
    timed = payloads[:MOST_TIMED]
    if not timed:
        return None
    models = [candidate] if champion is None else [candidate, champion]
    for model in models:  # the first answer pays for what the others find ready
        model.predict(timed[0])
    spent: list[list[float]] = [[] for _ in models]
    said: list[list[str]] = [[] for _ in models]
    for turn, payload in enumerate(timed):
        for number in range(len(models)) if turn % 2 == 0 else range(len(models) - 1, -1, -1):
            began = clock()
            answer = models[number].predict(payload)
            spent[number].append((clock() - began) * 1000)
            said[number].append(answer.prediction)
    medians = [float(np.median(one)) for one in spent]
    latency = Latency(samples=len(timed), candidate_ms=medians[0], champion_ms=medians[1] if champion else None)
    return Timed(latency=latency, answers=said[0])


def agreement(
    metric: str,
    exported: NDArray[np.float64],
    trained: NDArray[np.float64],
    what: Literal["pipeline", "features", "keras"] = "pipeline",
) -> Agreement | None:
    """Compare answers [samples] of a model's two forms: label numbers, or values. None without samples."""
    if len(exported) == 0:
        return None
    allowed = 0.0 if metric == "accuracy" else SAME_NUMBER * float(trained.std()) + 1e-6 * float(np.abs(trained).max())
    share = float((np.abs(exported - trained) <= allowed).mean())
    return Agreement(samples=len(exported), share=share, trained=what)


def budget_fault(
    config: Gate, release_bytes: int | None, latency: Latency | None, agreed: Agreement | None
) -> str | None:
    """The first budget that the candidate is over, in words; None if it keeps them all. What is None is not judged."""
    if release_bytes and config.max_release_bytes and release_bytes > config.max_release_bytes:
        return f"release of {release_bytes} bytes is over the budget of {config.max_release_bytes}"
    if agreed and agreed.share < config.min_agreement and agreed.different > 1:
        return (
            f"the exported model answers as the trained one on {agreed.share:.1%} of {agreed.samples} gate samples,"
            f" {config.min_agreement:.1%} is needed: export it otherwise"
        )
    return _latency_fault(config, latency) if latency and latency.samples >= LEAST_TIMED else None


def _latency_fault(config: Gate, latency: Latency) -> str | None:
    ratio, most = latency.ratio, config.max_latency_ratio
    if ratio and most and ratio > most:
        return (
            f"an answer takes {latency.candidate_ms:.3g} ms, {ratio:.2f} times the champion's"
            f" {latency.champion_ms:.3g} ms, {most:g} times is allowed"
        )
    if config.max_latency_ms and latency.candidate_ms > config.max_latency_ms:
        return f"an answer takes {latency.candidate_ms:.3g} ms here, {config.max_latency_ms:g} ms is allowed"
    return None
