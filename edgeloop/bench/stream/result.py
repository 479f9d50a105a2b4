"""What ``edgeloop bench stream`` measured, as it is written to JSON."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel

from edgeloop.bench.stream.data import NO_PREVIOUS
from edgeloop.bench.stream.methods import METHODS
from edgeloop.bench.stream.metrics import Figures, figures, interval, recovered
from edgeloop.bench.stream.policy import Method
from edgeloop.bench.stream.protocol import LATE, Run
from edgeloop.bench.stream.split import SplitStream


class Interval(BaseModel):
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


class MethodResult(BaseModel):
    """One method over all seeds; counts are means per seed."""

    method: str
    about: str
    figures: dict[str, Interval]
    """``prequential``, ``near_future``, ``final``, ``bwt``, ``fwt``, ``forgetting``, and ``recovered`` where there is
    something to recover."""
    over_sedna: dict[str, Interval]
    """``final`` and ``near_future`` less Sedna's, paired; empty without Sedna."""
    over_best_sedna: dict[str, Interval]
    """The same less the best of Sedna's rows, figure by figure."""
    final_candidate: float
    """Mean accuracy of the last candidate, deployed or not."""
    labels: float
    label_share: float
    samples: float
    upload_share: float
    bytes: float
    cpu_seconds: float
    slowest: float
    """CPU-seconds of the round, of all seeds, that took longest to learn: what the budget is held against."""
    promotions: float
    held: float
    over_budget: float
    """Candidates that took longer to learn than they may."""
    false_promotions: float
    false_rejections: float
    matrix: list[list[float]]
    """R[t][j]: accuracy on test j of the model deployed after round t."""
    candidate_matrix: list[list[float]]
    verdicts: list[list[str]]
    """Of each seed, what the gate said round by round."""


class StreamBench(BaseModel):
    """One stream, all methods in the same run."""

    stream: str
    labels: list[str]
    buckets: list[str]
    seeds: int
    limit: int
    delay: int
    budget: float
    """CPU-seconds that learning may take in a round."""
    contradictory: list[int]
    """Rows, by bucket, that equal another row of it and bear another label."""
    rows: list[dict[str, int]]
    """Rows of the first seed's ``pool``, ``gate`` and ``test``, by bucket."""
    same_as_last: Interval | None
    """Accuracy, over the pools from round 1, of answering the label before; of ordered streams only."""
    seconds: float
    methods: list[MethodResult]


def summarise(
    kinds: Sequence[type[Method]], splits: Sequence[SplitStream], runs: Sequence[Sequence[Run]]
) -> list[MethodResult]:
    """One result per method, of ``runs[seed][method]``."""
    names = [kind.name for kind in kinds]
    found = figures(splits, runs)
    part = recovered(found.values["final"], names)
    if part is not None:
        found.values["recovered"] = part
    return [_method(name, n, names, found, [of_seed[n] for of_seed in runs]) for n, name in enumerate(names)]


def _method(name: str, column: int, names: list[str], found: Figures, runs: list[Run]) -> MethodResult:
    rounds = [one for run in runs for one in run.rounds]
    seeds = len(runs)
    pooled = sum(run.pooled for run in runs)
    candidates = np.mean([run.candidate for run in runs], axis=0)
    return MethodResult(
        method=name,
        about=METHODS[name].about,
        figures={key: _interval(drawn[:, column]) for key, drawn in found.values.items()},
        over_sedna=_over(column, [name for name in names if name == "sedna"], names, found),
        over_best_sedna=_over(column, [name for name in names if name.startswith("sedna")], names, found),
        final_candidate=float(candidates[-1].mean()),
        labels=sum(run.labels for run in runs) / seeds,
        label_share=sum(run.labels for run in runs) / pooled,
        samples=sum(run.samples for run in runs) / seeds,
        upload_share=sum(run.samples for run in runs) / pooled,
        bytes=sum(run.bytes for run in runs) / seeds,
        cpu_seconds=sum(run.cpu_seconds for run in runs) / seeds,
        slowest=max(run.slowest for run in runs),
        promotions=sum(one.verdict == "pass" for one in rounds) / seeds,
        held=sum(one.verdict in {"fail", "inconclusive"} for one in rounds) / seeds,
        over_budget=sum(one.verdict == LATE for one in rounds) / seeds,
        false_promotions=sum(one.false_promotion for one in rounds) / seeds,
        false_rejections=sum(one.false_rejection for one in rounds) / seeds,
        matrix=found.matrix[:, :, column].tolist(),
        candidate_matrix=candidates.tolist(),
        verdicts=[[one.verdict for one in run.rounds] for run in runs],
    )


def _over(column: int, rivals: list[str], names: list[str], found: Figures) -> dict[str, Interval]:
    """``final`` and ``near_future`` less those of the rival that measured best."""
    differences = {}
    for key in ("final", "near_future") if rivals else ():
        drawn = found.values[key]
        best = max((names.index(rival) for rival in rivals), key=lambda n: float(drawn[0, n]))
        differences[key] = _interval(drawn[:, column] - drawn[:, best])
    return differences


def _interval(drawn: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Interval:
    value, low, high = interval(drawn)
    return Interval(value=value, low=low, high=high)


def same_as_last(splits: Sequence[SplitStream]) -> Interval | None:
    """How often a pool's label is the one before it; the interval is the spread over buckets and seeds."""
    right = []
    for split in splits:
        for bucket in split.buckets[1:]:
            known = bucket.pool.previous != NO_PREVIOUS
            if known.any():
                right.append(float((bucket.pool.previous[known] == bucket.pool.truth[known]).mean()))
    if not right:
        return None
    drawn = np.random.default_rng(15).choice(right, size=(1000, len(right))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value=float(np.mean(right)), low=float(low), high=float(high))
