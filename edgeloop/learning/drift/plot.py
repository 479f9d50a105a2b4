"""A picture of a watch: the evidence on each quantity against its threshold, and accuracy against its floor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.learning.drift.finding import Course, Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_drift(courses: Sequence[Course], findings: Sequence[Finding], path: Path) -> None:
    """Draw one panel a course to a PNG, and one more for audited accuracy; nothing without courses."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bands = [c for c in courses if c.bands]
    count = len(courses) + len(bands)
    if count == 0:
        return
    figure = Figure(figsize=(8, 2.2 * count), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(count, 1, squeeze=False)[:, 0]
    found = {f.quantity: f for f in findings}
    for axes, course in zip(panels, courses, strict=False):
        _evidence(axes, course, found.get(course.quantity))
    for axes, course in zip(panels[len(courses) :], bands, strict=True):
        _accuracy(axes, course, found.get(course.quantity))
    panels[-1].set_xlabel("samples")
    figure.savefig(path, dpi=110)


def _evidence(axes: Axes, course: Course, finding: Finding | None) -> None:
    axes.plot([p.samples for p in course.points], [p.statistic for p in course.points], marker=".", label="evidence")
    axes.axhline(course.threshold, color="black", linestyle="--", label=f"threshold {course.threshold:.1f}")
    _mark(axes, finding)
    seen = [min(p.statistic, 20) for p in course.points]
    axes.set_ylim(min([-2, *seen]) - 0.2, max([2 * course.threshold, *seen]))
    axes.set_ylabel("log10 of wealth")
    axes.set_title(f"{course.kind}: {course.quantity}", fontsize=10)
    axes.legend(fontsize=8, loc="upper left")


def _accuracy(axes: Axes, course: Course, finding: Finding | None) -> None:
    at = [b.samples for b in course.bands]
    axes.fill_between(at, [b.low for b in course.bands], [b.high for b in course.bands], alpha=0.2)
    axes.plot(at, [b.accuracy for b in course.bands], marker=".", label="share right")
    if course.floor is not None:
        axes.axhline(course.floor, color="black", linestyle="--", label=f"floor {course.floor:.3f}")
    _mark(axes, finding)
    axes.set_ylabel("audited accuracy")
    axes.legend(fontsize=8, loc="lower left")


def _mark(axes: Axes, finding: Finding | None) -> None:
    if finding is not None:
        axes.axvline(finding.since, color="tab:orange", label=f"since about {finding.since}")
        axes.axvline(finding.samples, color="tab:red", label=f"found at {finding.samples}")
