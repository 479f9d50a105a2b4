"""A decision of the gate for people: one page of Markdown with all that it rests on."""

from __future__ import annotations

from edgeloop.learning.estimate import Estimate
from edgeloop.learning.evaluate import Evaluation
from edgeloop.learning.gate import Decision, SliceResult
from edgeloop.samples.judging import Gate

#: What the exported model is compared with.
_TRAINED = {
    "pipeline": "the trained pipeline",
    "features": "on the features learned from",
    "keras": "the trained Keras backbone",
}


def decision_text(evaluation: Evaluation, gate: Gate, version: str, former: str | None, held: int = 0) -> str:
    """Verdict, reason, slices, tests, budgets and use of the gate samples, in Markdown."""
    decision = evaluation.decision
    lines = [
        f"## {decision.verdict}: {decision.reason}",
        "",
        _judges(decision, version, former, evaluation.drawn_from.get("gate")),
        "",
        *_slices(evaluation.metric, decision),
        "",
        "| checked | found | needed |",
        "|---|---|---|",
        *(f"| {what} | {found} | {needed} |" for what, found, needed in _checks(decision, gate)),
    ]
    if evaluation.estimates:
        lines += ["", "### Estimated accuracy in the field", "", *_estimates(evaluation.estimates)]
    if held:
        lines += ["", f"{held} new labels are set aside until a stronger source confirms them."]
    return "\n".join(lines)


def _judges(decision: Decision, version: str, former: str | None, drawn_from: int | None) -> str:
    retired = f"; {decision.worn} more are retired and may only refuse" if decision.worn else ""
    drawn = f", drawn from {drawn_from} by a hash of their names" if drawn_from else ""
    return (
        f"Version {version} against {former or 'nothing'}, on {decision.samples} locked gate samples{drawn}{retired}."
    )


def _slices(metric: str, decision: Decision) -> list[str]:
    whole = SliceResult(
        samples=decision.samples,
        candidate=decision.candidate or 0.0,
        champion=decision.champion,
        gain=decision.gain,
        gain_low=decision.gain_low,
        gain_high=decision.gain_high,
        confidence=decision.confidence,
    )
    parts = ({} if decision.candidate is None else {"all": whole}) | decision.slices
    return [
        f"| slice | samples | candidate {metric} | champion {metric} | gain | one-sided bounds | allowed drop |",
        "|---|---|---|---|---|---|---|",
        *(_slice(name, part) for name, part in parts.items()),
    ]


def _slice(name: str, part: SliceResult) -> str:
    champion = "" if part.champion is None else f"{part.champion:.3f}"
    gain = "" if part.gain is None else f"{part.gain:+.3f}"
    bounds = ""
    if part.gain_low is not None and part.gain_high is not None and part.confidence is not None:
        bounds = f"{part.gain_low:+.3f} to {part.gain_high:+.3f} ({part.confidence:.0%} each)"
    allowed = "" if part.margin is None else f"{part.margin:g}"
    return f"| {name} | {part.samples} | {part.candidate:.3f} | {champion} | {gain} | {bounds} | {allowed} |"


def _checks(decision: Decision, gate: Gate) -> list[tuple[str, str, str]]:
    """What was tested or measured, what came out, and what a pass needs."""
    found = [("gate samples", str(decision.samples), f"at least {gate.min_samples}")]
    if decision.gain_low is not None:
        found.append(("lower bound of the gain", f"{decision.gain_low:+.4f}", f"above {gate.margin:g}"))
    if decision.p is not None:
        name = "McNemar's exact test, p" if decision.mcnemar else "sign-flip test of squared errors, p"
        found.append((name, f"{decision.p:.4f}", f"at most {1 - gate.confidence:.4g}" if gate.exact else ""))
    if decision.mcnemar:
        counts = decision.mcnemar
        found.append(("right alone: candidate, champion", f"{counts.better}, {counts.worse}", ""))
        found.append(("McNemar's mid-p", f"{counts.mid_p:.4f}", "for information"))
    return found + _budgets(decision, gate)


def _budgets(decision: Decision, gate: Gate) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    if decision.release_bytes:
        found.append(("release, bytes", str(decision.release_bytes), _most(gate.max_release_bytes)))
    if decision.latency:
        timed = f"{decision.latency.candidate_ms:.3g} on {decision.latency.samples} samples"
        found.append(("median answer, ms", timed, _most(gate.max_latency_ms)))
        if decision.latency.ratio:
            found.append(
                ("median answer against the champion's", f"{decision.latency.ratio:.2f}", _most(gate.max_latency_ratio))
            )
    if decision.agreement:
        agreed = f"{decision.agreement.share:.1%} of {decision.agreement.samples}"
        what = _TRAINED[decision.agreement.trained]
        found.append((f"export answers as {what}", agreed, f"at least {gate.min_agreement:.1%}, or all but one"))
    if decision.uses is not None:
        found.append(("most decisions of one gate sample", str(decision.uses), f"at most {gate.max_reuse}"))
    return found


def _most(budget: float | None) -> str:
    return "no budget" if budget is None else f"at most {budget:g}"


def _estimates(found: dict[str, Estimate]) -> list[str]:
    return [
        "| of | from | accuracy | interval | samples | effective |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {one.method} | {one.value:.3f} | {one.low:.3f} to {one.high:.3f} ({one.confidence:.0%})"
            f" | {one.samples} | {one.effective:.0f} |"
            for name, one in found.items()
        ),
    ]
