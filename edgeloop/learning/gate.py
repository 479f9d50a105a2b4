"""The gate: may this candidate replace the champion? A pure function that answers with its reasons.

The candidate is compared with the serving champion on the same locked gate samples by a paired bootstrap (Efron and
Tibshirani 1993, chapter 8): samples are drawn with replacement, the metric of both models is computed on each draw,
and the candidate passes only if the lower end of the one-sided confidence interval of the gain clears the margin. A
slice of older samples that drops by more than its own margin is a veto, whatever is gained elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from edgeloop.samples.service import Gate

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Slices smaller than this are reported and cannot veto.
MIN_SLICE = 10
#: A sure loss smaller than this refuses the candidate without casting suspicion on its labels.
LEAST_HARM = 0.01
_CHUNK = 200


class SliceResult(BaseModel):
    """The metric of both models on one slice of the gate samples."""

    samples: int
    candidate: float
    champion: float | None


class Decision(BaseModel):
    """What the gate says, and why."""

    verdict: Literal["pass", "fail", "inconclusive"]
    reason: str
    harmful: bool = False
    """The candidate lost something that the champion could do: its new labels are suspect."""
    samples: int
    candidate: float | None = None
    champion: float | None = None
    gain: float | None = None
    gain_low: float | None = None
    """Lower end of the one-sided confidence interval of the gain."""
    gain_high: float | None = None
    slices: dict[str, SliceResult] = {}


def score(metric: str, truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """``accuracy`` of label numbers or ``r2`` of values; arrays of shape [samples]."""
    return float(_scores(metric, truth[np.newaxis], predicted[np.newaxis])[0])


def _scores(metric: str, truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """The metric of each row of [draws, samples]."""
    if metric == "accuracy":
        return np.asarray((truth == predicted).mean(axis=1))
    residual = ((truth - predicted) ** 2).sum(axis=1)
    spread = ((truth - truth.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    return np.asarray(1 - residual / np.maximum(spread, 1e-12))


def paired_gains(
    metric: str,
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    resamples: int,
    seed: int,
) -> NDArray[np.float64]:
    """Gain of the candidate over the champion on ``resamples`` paired bootstrap draws: float64 [resamples]."""
    rng = np.random.default_rng(seed)
    gains: list[NDArray[np.float64]] = []
    for start in range(0, resamples, _CHUNK):
        draw = rng.integers(len(truth), size=(min(_CHUNK, resamples - start), len(truth)))
        gains.append(_scores(metric, truth[draw], candidate[draw]) - _scores(metric, truth[draw], champion[draw]))
    return np.concatenate(gains)


def decide(
    config: Gate,
    metric: str,
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
    slices: dict[str, NDArray[np.bool_]],
    veto: frozenset[str] = frozenset({"old"}),
    release_bytes: int | None = None,
    seed: int = 0,
) -> Decision:
    """Compare a candidate with the champion on locked gate samples.

    Args:
        config: margins, confidence and minimum counts.
        metric: ``accuracy`` or ``r2``.
        truth: right answers, [samples]; labels as their numbers.
        candidate: the candidate's answers, [samples].
        champion: the champion's answers, [samples]; None when there is none yet.
        slices: masks [samples] by name; reported, and those in ``veto`` may refuse.
        veto: names of slices that must not drop by more than ``config.slice_margin``.
        release_bytes: size of the release, held against ``config.max_release_bytes``.
        seed: makes the bootstrap repeatable.
    """
    n = len(truth)
    if n < config.min_samples:
        return Decision(
            verdict="inconclusive",
            reason=f"{n} gate samples with trusted labels are too few, {config.min_samples} are needed: label more",
            samples=n,
        )
    parts = {name: _slice(metric, mask, truth, candidate, champion) for name, mask in slices.items() if mask.any()}
    value = score(metric, truth, candidate)
    base = Decision(verdict="fail", reason="", samples=n, candidate=value, slices=parts)
    if not np.isfinite(value):
        return base.model_copy(
            update={"candidate": None, "reason": f"the candidate's {metric} is {value}, not a number"}
        )
    if release_bytes and config.max_release_bytes and release_bytes > config.max_release_bytes:
        reason = f"release of {release_bytes} bytes is over the budget of {config.max_release_bytes}"
        return base.model_copy(update={"reason": reason})
    if champion is None:
        return _first(base, config, metric)
    gains = paired_gains(metric, truth, candidate, champion, config.resamples, seed)
    low, high = (float(q) for q in np.quantile(gains, [1 - config.confidence, config.confidence]))
    before = score(metric, truth, champion)
    base = base.model_copy(update={"champion": before, "gain": value - before, "gain_low": low, "gain_high": high})
    return _compare(base, config, metric, veto)


def _slice(
    metric: str,
    mask: NDArray[np.bool_],
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
) -> SliceResult:
    return SliceResult(
        samples=int(mask.sum()),
        candidate=score(metric, truth[mask], candidate[mask]),
        champion=None if champion is None else score(metric, truth[mask], champion[mask]),
    )


def _first(base: Decision, config: Gate, metric: str) -> Decision:
    least = config.bootstrap_minimum
    if least is not None and (base.candidate or 0.0) < least:
        return base.model_copy(update={"reason": f"first model has {metric} {base.candidate:.3f}, {least} is needed"})
    return base.model_copy(update={"verdict": "pass", "reason": f"first model, {metric} {base.candidate:.3f}"})


def _compare(base: Decision, config: Gate, metric: str, veto: frozenset[str]) -> Decision:
    for name in sorted(veto & set(base.slices)):
        part = base.slices[name]
        drop = (part.champion or 0.0) - part.candidate
        if part.samples >= MIN_SLICE and drop > config.slice_margin:
            reason = (
                f"drops {metric} by {drop:.3f} on the {part.samples} {name} gate samples"
                f" ({part.champion:.3f} to {part.candidate:.3f}), {config.slice_margin} is allowed"
            )
            return base.model_copy(update={"reason": reason, "harmful": True})
    span = f"gain {base.gain:+.3f}, {config.confidence:.0%} sure of at least {base.gain_low:+.3f}"
    if base.gain_high is not None and base.gain_high < 0:
        harmful = base.gain is not None and base.gain < -LEAST_HARM
        return base.model_copy(update={"reason": f"worse than the champion: {span}", "harmful": harmful})
    if base.gain_low is not None and base.gain_low > config.margin:
        return base.model_copy(update={"verdict": "pass", "reason": f"better than the champion: {span}"})
    return base.model_copy(update={"reason": f"not surely better than the champion: {span}, {config.margin} is needed"})
