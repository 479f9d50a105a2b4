"""The gate: may this candidate replace the champion? A pure function that answers with its reasons.

Both models answer the same locked gate samples. The candidate passes only if two paired tests agree that it is better:
the lower end of the one-sided bootstrap interval of the gain clears the margin, and a randomisation test whose level
holds on any number of samples (for classifiers McNemar's exact test) cannot put the gain down to chance. A slice that
surely or largely drops is a veto, whatever is gained elsewhere; budgets are held first. Samples that have made as many
decisions as they may are worn: they can still refuse what does harm, and say nothing for a candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from edgeloop.learning.gate_budgets import Agreement, Latency, budget_fault
from edgeloop.learning.gate_tests import McNemar, gain_bounds, mcnemar, sample_gains, score, sign_flip
from edgeloop.samples.judging import Gate, Veto

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEAST_HARM", "MIN_SLICE", "Decision", "SliceResult", "decide", "score"]
#: Slices smaller than this are reported and cannot veto.
MIN_SLICE = 10
#: A sure loss smaller than this refuses the candidate without casting suspicion on its labels.
LEAST_HARM = 0.01
#: How sure the reported bounds of a slice without a veto are.
_REPORTED = Veto().confidence
_EXACT = 1e-9


class SliceResult(BaseModel):
    """The metric of both models on one slice of the gate samples."""

    samples: int
    candidate: float
    champion: float | None
    gain: float | None = None
    gain_low: float | None = None
    """Lower end of the one-sided confidence interval of the gain."""
    gain_high: float | None = None
    confidence: float | None = None
    """Of each of the two bounds."""
    margin: float | None = None
    """The drop that the slice's veto allows; None where it has no veto."""


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
    confidence: float | None = None
    """Of each of the two bounds."""
    p: float | None = None
    """How often models that are as good as each other show this gain or more: McNemar's exact test of classifiers,
    a sign-flip test of squared errors else."""
    mcnemar: McNemar | None = None
    slices: dict[str, SliceResult] = {}
    release_bytes: int | None = None
    latency: Latency | None = None
    agreement: Agreement | None = None
    uses: int | None = None
    """Most decisions that one of these samples has made, this one included."""
    worn: int = 0
    """Gate samples beside ``samples`` that have made as many decisions as they may."""


def decide(
    config: Gate,
    metric: str,
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
    slices: dict[str, NDArray[np.bool_]],
    veto: frozenset[str] | None = None,
    release_bytes: int | None = None,
    seed: int = 0,
    latency: Latency | None = None,
    agreed: Agreement | None = None,
    uses: int | None = None,
    worn: NDArray[np.bool_] | None = None,
) -> Decision:
    """Compare a candidate with the champion on locked gate samples.

    Args:
        config: margins, confidence, budgets and minimum counts.
        metric: ``accuracy`` or ``r2``.
        truth: right answers, [samples]; labels as their numbers.
        candidate: the candidate's answers, [samples].
        champion: the champion's answers, [samples]; None when there is none yet.
        slices: masks [samples] by name; reported, and those with a veto may refuse.
        veto: names of the slices that may refuse; those that ``config.veto`` names if None.
        release_bytes: size of the release, held against ``config.max_release_bytes``.
        seed: makes the bootstrap repeatable.
        latency: time of an answer, held against ``config.max_latency_ratio`` and ``config.max_latency_ms``.
        agreed: agreement of export and training, held against ``config.min_agreement``.
        uses: most decisions that one of the samples that are not worn has made, this one included.
        worn: mask [samples] of those that have made ``config.max_reuse`` decisions; none if None. They are in the
            slices, which may refuse, and not in the gain.
    """
    fresh = np.ones(len(truth), dtype=bool) if worn is None else ~worn
    n = int(fresh.sum())
    base = Decision(
        verdict="fail",
        reason="",
        samples=n,
        release_bytes=release_bytes,
        latency=latency,
        agreement=agreed,
        uses=uses,
        worn=len(truth) - n,
    )
    if len(truth) < config.min_samples:
        few = f"{n} gate samples with trusted labels are too few, {config.min_samples} are needed: label more"
        return _say(base, few, verdict="inconclusive")
    spent = n < config.min_samples
    judges = np.ones(len(truth), dtype=bool) if spent else fresh
    answers = (truth, candidate, champion)
    decided = _judge(base, config, metric, answers, slices, judges, _vetoes(config, veto), seed)
    if not spent:
        return decided
    return _say(decided, decided.reason, samples=len(truth)) if decided.harmful else _spent(decided, config)


def _judge(
    base: Decision,
    config: Gate,
    metric: str,
    answers: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None],
    slices: dict[str, NDArray[np.bool_]],
    fresh: NDArray[np.bool_],
    vetoes: dict[str, Veto],
    seed: int,
) -> Decision:
    """Compare on the ``fresh`` samples, and on all of them by slice; ``answers`` are truth, candidate and champion."""
    parts = _slices(config, metric, *answers, slices, vetoes, seed)
    truth, candidate = (a[fresh] for a in answers[:2])
    champion = None if answers[2] is None else answers[2][fresh]
    value = score(metric, truth, candidate)
    if not np.isfinite(value):
        return _say(base, f"the candidate's {metric} is {value}, not a number")
    base = base.model_copy(update={"candidate": value, "slices": parts})
    over = budget_fault(config, base.release_bytes, base.latency, base.agreement)
    if over:
        return _say(base, over)
    if champion is None:
        return _first(base, config, metric)
    before = score(metric, truth, champion)
    if not np.isfinite(before):
        broken = f"the champion's {metric} is {before}, not a number: promote by hand, or mend the champion"
        return _say(base, broken, verdict="inconclusive")
    tested = _tested(base, config, metric, truth, candidate, champion, seed)
    return _compare(tested, config, metric, vetoes)


def _say(base: Decision, reason: str, **changes: object) -> Decision:
    return base.model_copy(update={"reason": reason} | changes)


def _vetoes(config: Gate, names: frozenset[str] | None) -> dict[str, Veto]:
    """The veto of each slice that has one."""
    known = {name: found for name in type(config.veto).model_fields if (found := getattr(config.veto, name))}
    return known if names is None else {name: known.get(name, Veto()) for name in sorted(names)}


def _slices(
    config: Gate,
    metric: str,
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64] | None,
    slices: dict[str, NDArray[np.bool_]],
    vetoes: dict[str, Veto],
    seed: int,
) -> dict[str, SliceResult]:
    """Each slice that has samples, with bounds of its gain; R² is held against the variance of all samples."""
    spread = float(truth.var())
    found: dict[str, SliceResult] = {}
    for name, mask in slices.items():
        if not mask.any():
            continue
        right, answers = truth[mask], candidate[mask]
        part = SliceResult(samples=int(mask.sum()), candidate=score(metric, right, answers, spread), champion=None)
        if champion is not None:
            veto = vetoes.get(name)
            sure = veto.confidence if veto else _REPORTED
            bounds = gain_bounds(metric, right, answers, champion[mask], sure, config.resamples, seed, spread)
            part = SliceResult(
                samples=part.samples,
                candidate=part.candidate,
                champion=score(metric, right, champion[mask], spread),
                gain=bounds.gain,
                gain_low=bounds.low,
                gain_high=bounds.high,
                confidence=sure,
                margin=_margin(config, veto) if veto else None,
            )
        found[name] = part
    return found


def _margin(config: Gate, veto: Veto) -> float:
    return config.slice_margin if veto.margin is None else veto.margin


def _first(base: Decision, config: Gate, metric: str) -> Decision:
    least = config.bootstrap_minimum
    if least is not None and (base.candidate or 0.0) < least:
        return _say(base, f"first model has {metric} {base.candidate:.3f}, {least} is needed")
    return _say(base, f"first model, {metric} {base.candidate:.3f}", verdict="pass")


def _tested(
    base: Decision,
    config: Gate,
    metric: str,
    truth: NDArray[np.float64],
    candidate: NDArray[np.float64],
    champion: NDArray[np.float64],
    seed: int,
) -> Decision:
    """Add the gain, its bounds and the tests."""
    bounds = gain_bounds(metric, truth, candidate, champion, config.confidence, config.resamples, seed)
    counts = mcnemar(truth, candidate, champion) if metric == "accuracy" else None
    p = counts.p if counts else sign_flip(sample_gains(metric, truth, candidate, champion), config.resamples, seed)
    found = {"gain": bounds.gain, "gain_low": bounds.low, "gain_high": bounds.high, "p": p, "mcnemar": counts}
    return base.model_copy(update=found | {"champion": score(metric, truth, champion), "confidence": config.confidence})


def _compare(base: Decision, config: Gate, metric: str, vetoes: dict[str, Veto]) -> Decision:
    for name in sorted(vetoes.keys() & base.slices.keys()):
        dropped = _drop(config, metric, name, base.slices[name], vetoes[name])
        if dropped:
            return _say(base, dropped, harmful=True)
    gain, low, high, p = base.gain or 0.0, base.gain_low or 0.0, base.gain_high or 0.0, base.p or 0.0
    span = f"gain {gain:+.3f}, {config.confidence:.0%} sure of at least {low:+.3f}"
    if high < 0:
        return _say(base, f"worse than the champion: {span}", harmful=gain < -LEAST_HARM)
    if not low > config.margin:
        return _say(base, f"not surely better than the champion: {span}, more than {config.margin} is needed")
    if config.exact and p > 1 - config.confidence + _EXACT:
        return _say(base, f"not surely better than the champion: {span}, but chance shows as much in {p:.1%} of cases")
    return _filled(_say(base, f"better than the champion: {span}", verdict="pass"), vetoes)


def _drop(config: Gate, metric: str, name: str, part: SliceResult, veto: Veto) -> str | None:
    """Why the drop on a slice refuses the candidate, if it does.

    It must be over the margin, and sure, or so large that it is not worth the risk. The second is for accuracy only,
    where one sample of n cannot move more than 1/n: one far-off sample can make any drop of R².
    """
    drop, margin = -(part.gain or 0.0), _margin(config, veto)
    if part.samples < MIN_SLICE or drop <= margin + _EXACT:
        return None
    large = 2 * margin if veto.large is None else veto.large
    sure = part.gain_high is not None and part.gain_high < 0
    if not sure and not (metric == "accuracy" and drop > large + _EXACT):
        return None
    why = f"{veto.confidence:.0%} sure that it drops" if sure else f"over {large:g} chance is no excuse"
    return (
        f"drops {metric} by {drop:.3f} on the {part.samples} {name} gate samples"
        f" ({part.champion:.3f} to {part.candidate:.3f}), {margin:g} is allowed; {why}"
    )


def _filled(passed: Decision, vetoes: dict[str, Veto]) -> Decision:
    """What passes is inconclusive while a slice that must have samples has too few."""
    for name, veto in sorted(vetoes.items()):
        count = passed.slices[name].samples if name in passed.slices else 0
        if count < veto.min_samples:
            few = f"{count} {name} gate samples are too few, {veto.min_samples} are needed: label more"
            return _say(passed, f"{few} ({passed.reason})", verdict="inconclusive")
    return passed


def _spent(decided: Decision, config: Gate) -> Decision:
    """With too few fresh samples nothing is said but that something does harm; what else was found is not told."""
    why = (
        f"{decided.worn} gate samples have made {config.max_reuse} decisions each and are retired, and the"
        f" {decided.samples} fresh ones are too few, {config.min_samples} are needed: label fresh audit samples"
    )
    untold = {"candidate": None, "champion": None, "gain": None, "gain_low": None, "gain_high": None, "p": None}
    return _say(decided, why, verdict="inconclusive", mcnemar=None, slices={}, **untold)
