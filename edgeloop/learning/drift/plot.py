"""A picture of a watch: the evidence on each quantity against its threshold, and accuracy against its floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.learning.drift.finding import Course, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edgeloop.learning.drift.field import Period
    from edgeloop.learning.estimate import Estimate

#: Quantities of a panel that are named; the others are grey.
_NAMED = 5
#: Evidence is drawn up to this many times the threshold, which could not be seen otherwise.
_HIGHEST = 4.0


def plot_drift(
    courses: Sequence[Course], findings: Sequence[Finding], path: Path, periods: Sequence[Period] = ()
) -> None:
    """Draw one panel a kind of quantity to a PNG, and more for accuracy; nothing where nothing was looked at."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = sorted(dict.fromkeys(c.kind for c in courses if c.points), key=lambda kind: kind == "accuracy")
    bands = [c for c in courses if c.bands]
    count = len(kinds) + len(bands) + bool(periods)
    if count == 0:
        return
    figure = Figure(figsize=(9, 2.9 * count), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(count, 1, squeeze=False)[:, 0])
    found = {f.quantity: f for f in findings}
    for kind in kinds:
        _evidence(panels.pop(0), [c for c in courses if c.kind == kind and c.points], found)
    for course in bands:
        _accuracy(panels.pop(0), course, found.get(course.quantity))
    if periods:
        _field(panels.pop(0), periods)
    figure.savefig(path, dpi=110)


def _evidence(axes: Axes, courses: Sequence[Course], found: dict[str, Finding]) -> None:
    threshold = courses[0].threshold
    top = _HIGHEST * threshold
    ranked = sorted(courses, key=lambda c: max(p.statistic for p in c.points), reverse=True)
    for place, course in enumerate(ranked):
        named = {"label": _name(course, found)} if place < _NAMED else {"color": "0.75", "zorder": 1}
        steps = [(x, min(y, top)) for x, y in evidence_steps(course, found.get(course.quantity))]
        axes.plot([x for x, _ in steps], [y for _, y in steps], marker=".", **named)
    axes.axhline(threshold, color="black", linestyle="--", label=f"threshold {threshold:.2f}")
    first = min((found[c.quantity] for c in courses if c.quantity in found), key=lambda f: f.samples, default=None)
    _mark(axes, first)
    lowest = min(-0.5, *(p.statistic for c in courses for p in c.points))
    axes.set_ylim(max(lowest, -threshold) - 0.2, top if first else 1.5 * threshold)
    axes.set_ylabel(f"log10 of wealth{', cut at ' + format(top, '.1f') if first else ''}")
    axes.set_xlabel("samples tested")
    more = f", {len(ranked) - _NAMED} more in grey" if len(ranked) > _NAMED else ""
    axes.set_title(f"evidence that {_plural(courses)} changed{more}", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def evidence_steps(course: Course, finding: Finding | None) -> list[tuple[int, float]]:
    """Samples and evidence at each look, and where the threshold was crossed: that may lie between two looks."""
    steps = [(0, 0.0), *((p.samples, p.statistic) for p in course.points)]
    if finding is None or any(x == finding.samples for x, _ in steps) or finding.samples > steps[-1][0]:
        return steps
    return sorted([*steps, (finding.samples, finding.statistic)])


def _name(course: Course, found: dict[str, Finding]) -> str:
    return f"{course.quantity} (found)" if course.quantity in found else course.quantity


def _plural(courses: Sequence[Course]) -> str:
    kind = courses[0].kind
    return "audited accuracy" if kind == "accuracy" else kind


def _accuracy(axes: Axes, course: Course, finding: Finding | None) -> None:
    at = [b.samples for b in course.bands]
    low, high = [b.low for b in course.bands], [b.high for b in course.bands]
    axes.fill_between(at, low, high, alpha=0.2, label="interval at all looks")
    axes.plot(at, [b.accuracy for b in course.bands], marker=".", label="share right")
    if course.floor is not None:
        axes.axhline(course.floor, color="black", linestyle="--", label=f"floor {course.floor:.3f}")
    _mark(axes, finding)
    axes.set_ylabel("audited accuracy")
    axes.set_xlabel("audited answers of the champion")
    axes.set_title("accuracy since the watch began", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _field(axes: Axes, periods: Sequence[Period]) -> None:
    places = list(range(len(periods)))
    for name, shift, found in (
        ("audit slice", -0.06, [p.audit for p in periods]),
        ("all, weighted", 0.06, [p.weighted for p in periods]),
    ):
        points = [(x + shift, one) for x, one in zip(places, found, strict=True) if one]
        if points:
            _bars(axes, points, name)
    axes.set_xticks(places, [f"{p.start:%m-%d %H:%M}" for p in periods], fontsize=7)
    axes.set_ylabel("accuracy of the fleet")
    axes.set_xlabel("periods of equally many labelled answers, by their start")
    axes.set_title("estimated accuracy of all answers, 95 % intervals", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bars(axes: Axes, points: Sequence[tuple[float, Estimate]], name: str) -> None:
    values = [one.value for _, one in points]
    below = [max(0.0, one.value - one.low) for _, one in points]
    above = [max(0.0, one.high - one.value) for _, one in points]
    axes.errorbar([x for x, _ in points], values, yerr=[below, above], fmt="o", markersize=4, capsize=3, label=name)


def _mark(axes: Axes, finding: Finding | None) -> None:
    if finding is not None:
        axes.axvline(finding.since, color="black", linestyle=":", label=f"since about {finding.since}")
        axes.axvline(finding.samples, color="black", linewidth=1, label=f"first found at {finding.samples}")
