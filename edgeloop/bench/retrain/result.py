"""What ``edgeloop bench retrain`` found, as figures and as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from pydantic import BaseModel

from edgeloop.bench.retrain.stages import STAGES


class FullTime(BaseModel):
    """A fine-tune of the whole backbone beside the head."""

    images: int
    """It was measured on."""
    samples: int
    """That its time is stated for: those that the head was fitted on."""
    epochs: int
    """That were run."""
    epoch_seconds: float
    """Of an epoch over all ``samples``, in proportion to the images."""
    accuracy: float
    """The best on held-out images."""
    head_accuracy: float
    reached: bool
    """Whether it came to the head's accuracy, with all samples in every epoch. If not, the time is a lower bound."""
    seconds: float
    """Of the epochs until it did, or of those that were run."""
    ratio: float
    """``seconds`` by those of the head's whole retrain."""


class Grown(BaseModel):
    """Rounds at one length of the history."""

    history: int
    """Labelled samples in the tables, of all splits."""
    seconds: dict[str, float]
    """By stage, median, and ``total``."""
    cpu_seconds: dict[str, float]
    """Of this process on its cores, likewise: what other programs do at the same time changes it less."""
    store_reads: dict[str, int]
    """Objects and ranges of objects read by stage, tables not counted."""
    store_bytes: dict[str, int]


class Growth(BaseModel):
    """How the cost of a round grows with the history at a fixed replay."""

    replay: int
    new: int
    """Samples since the champion's dataset."""
    points: list[Grown]
    exponents: dict[str, float]
    """By stage: x in  cpu_seconds ~ history ** x, by least squares on logarithms. 0: none; 1: in proportion."""


class RetrainBench(BaseModel):
    """What ``edgeloop bench retrain`` measured."""

    backbone: str
    samples: int
    """That each head was fitted on: ``new`` and ``replay``."""
    new: int
    replay: int
    gate: int
    features: int
    feature_seconds: float
    """Spent on features that were not cached, before the first retrain."""
    runs: list[dict[str, float]]
    """Seconds by stage."""
    seconds: dict[str, float]
    """Medians of the stages, and ``total``, the median of the sums."""
    accuracy: float
    """On the gate samples."""
    full: FullTime | None = None
    growth: Growth | None = None


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median of each stage, and of the sums as ``total``."""
    by_stage = {stage: statistics.median(run[stage] for run in runs) for stage in STAGES}
    return by_stage | {"total": statistics.median(sum(run.values()) for run in runs)}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log(seconds) over log(sizes), by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(max(second, 1e-6)) for second in seconds]
    return statistics.linear_regression(x, y).slope


def retrain_text(result: RetrainBench) -> str:
    """The measurement for a terminal."""
    lines = [
        f"head of {result.features} features on {result.samples} samples ({result.new} new, {result.replay} replayed),"
        f" {result.gate} gate samples, accuracy {result.accuracy:.3f}",
        f"features computed before: {result.feature_seconds:.1f} s; the others were cached",
        f"from data to registered candidate, median of {len(result.runs)} in seconds:",
        *(f"  {stage:<10}{result.seconds[stage]:7.2f}" for stage in (*STAGES, "total")),
    ]
    if result.full:
        lines += _full_lines(result.full)
    if result.growth:
        lines += _growth_lines(result.growth)
    return "\n".join(lines)


def _full_lines(full: FullTime) -> list[str]:
    if full.reached:
        said = f"it reached the head's {full.head_accuracy:.3f} in {full.epochs} epochs: {full.seconds:.0f} s"
    else:
        said = (
            f"{full.epochs} of its epochs take {full.seconds:.0f} s and gave {full.accuracy:.3f} on {full.images}"
            f" images; the head's {full.head_accuracy:.3f} needs more, so the ratio is a lower bound"
        )
    least = "" if full.reached else "at least "
    return [f"full fine-tune: {said}", f"the head's retrain is {least}{full.ratio:.0f} times faster"]


def _growth_lines(growth: Growth) -> list[str]:
    stages = (*STAGES, "total")
    head = f"{'history':>9}" + "".join(f"{stage:>10}" for stage in stages) + f"{'wall':>8}{'reads':>8}{'MB':>8}"
    rows = [
        f"{p.history:>9}"
        + "".join(f"{p.cpu_seconds[stage]:>10.2f}" for stage in stages)
        + f"{p.seconds['total']:>8.2f}"
        + f"{sum(p.store_reads.values()):>8}{sum(p.store_bytes.values()) / 1e6:>8.1f}"
        for p in growth.points
    ]
    tail = f"{'exponent':>9}" + "".join(f"{growth.exponents[stage]:>10.2f}" for stage in stages)
    return [
        f"rounds with {growth.replay} samples replayed and {growth.new} new, in seconds of a core:",
        head,
        *rows,
        tail,
    ]
