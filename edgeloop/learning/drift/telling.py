"""What a watch found, for people: on a page in Prefect, and for the terminal. Every number has its threshold."""

from __future__ import annotations

from typing import Any

from edgeloop.learning.drift.finding import Course, Finding
from edgeloop.learning.drift.kept import WatchState, plot_key
from edgeloop.learning.estimate import Estimate


def headline(state: WatchState) -> str:
    """One sentence: whether anything drifted."""
    found = state.findings
    about = f"{state.service}, version {state.champion}"
    if not found:
        return f"{about}: no drift in {state.samples} samples"
    kinds = ", ".join(dict.fromkeys(f.kind for f in found))
    return f"{about}: {kinds} drifted ({len(found)} of {len(state.courses)} quantities)"


def next_step(state: WatchState) -> str:
    """What to do, or to wait for."""
    found = state.findings
    if any(f.kind == "accuracy" for f in found):
        return "answers became worse: label new audit samples (edgeloop label), so that the retrain learns what changed"
    if found:
        return "a retrain was asked for; label new audit samples (edgeloop label), then the gate decides"
    if not any(c.points for c in state.courses):
        return "nothing is tested yet: wait for audit samples of this champion (selection.audit in the service's YAML)"
    return "nothing to do"


def table_rows(state: WatchState) -> list[list[str]]:
    """Quantity, evidence, threshold, samples, and what was found; the strongest evidence first."""
    found = {f.quantity: f for f in state.findings}
    ranked = sorted(state.courses, key=lambda c: _highest(c, found), reverse=True)
    return [
        [c.quantity, f"{_highest(c, found):.2f}", f"{c.threshold:.2f}", str(_samples(c)), _said(found.get(c.quantity))]
        for c in ranked
    ]


HEADER = ["quantity", "evidence", "threshold", "samples", "found"]


def _highest(course: Course, found: dict[str, Finding]) -> float:
    statistics = [p.statistic for p in course.points]
    if course.quantity in found:
        statistics.append(found[course.quantity].statistic)
    return max(statistics, default=0.0)


def _samples(course: Course) -> int:
    return course.points[-1].samples if course.points else 0


def _said(finding: Finding | None) -> str:
    if finding is None:
        return ""
    at = f" ({finding.since_at:%Y-%m-%d %H:%M} UTC)" if finding.since_at else ""
    return f"after {finding.samples}, since about sample {finding.since}{at}"


def accuracy_line(state: WatchState) -> str | None:
    """Audited accuracy of the champion against its floor; None where it is not tested."""
    course = next((c for c in state.courses if c.kind == "accuracy"), None)
    if course is None or course.floor is None:
        return None
    if not course.bands:
        return f"audited accuracy: no answers yet; it must stay above {course.floor:.3f}"
    last = course.bands[-1]
    return (
        f"audited accuracy: {last.accuracy:.3f} of {last.samples} answers, {last.low:.3f} to {last.high:.3f} at all"
        f" looks; it must stay above {course.floor:.3f}"
    )


def period_rows(state: WatchState) -> list[list[str]]:
    """Time and both estimates of each period, the oldest first."""
    return [
        [f"{p.start:%Y-%m-%d %H:%M}", f"{p.end:%Y-%m-%d %H:%M}", _estimate(p.audit), _estimate(p.weighted)]
        for p in state.periods
    ]


PERIOD_HEADER = ["from", "to", "audit slice", "all, weighted"]


def _estimate(one: Estimate | None) -> str:
    if one is None:
        return ""
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f}, {one.samples} answers)"


def markdown(state: WatchState) -> str:
    """The page of a watch."""
    lines = [
        f"## {headline(state)}",
        "",
        f"Compared with {state.reference}. Evidence is log10 of the wealth of a bet that nothing changed; a finding is"
        f" evidence above the threshold. The chance that all of this ever raises one without drift is at most"
        f" {state.alpha:.3g}. The picture is in the object store: `{plot_key(state.service, state.watch)}`.",
        "",
        *_markdown(HEADER, table_rows(state)),
    ]
    if line := accuracy_line(state):
        lines += ["", line]
    if state.periods:
        lines += ["", "### Estimated accuracy of the fleet", "", *_markdown(PERIOD_HEADER, period_rows(state))]
    return "\n".join([*lines, "", f"Next: {next_step(state)}."])


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def as_json(state: WatchState) -> dict[str, Any]:
    """The same for programs; ``findings`` without their courses."""
    found = [{**f.model_dump(mode="json", exclude={"course"}), "reason": f.reason} for f in state.findings]
    quantities = [
        {
            "quantity": c.quantity,
            "kind": c.kind,
            "statistic": c.points[-1].statistic if c.points else 0.0,
            "threshold": c.threshold,
            "samples": _samples(c),
        }
        for c in state.courses
    ]
    line = next((c for c in state.courses if c.kind == "accuracy"), None)
    return {
        "service": state.service,
        "champion": state.champion,
        "watch": state.watch,
        "reference": state.reference,
        "alpha": state.alpha,
        "samples": state.samples,
        "at": state.at.isoformat(),
        "drifted": bool(found),
        "findings": found,
        "quantities": quantities,
        "accuracy": line.bands[-1].model_dump(mode="json") | {"floor": line.floor} if line and line.bands else None,
        "periods": [p.model_dump(mode="json") for p in state.periods],
        "plot": plot_key(state.service, state.watch),
        "next": next_step(state),
    }
