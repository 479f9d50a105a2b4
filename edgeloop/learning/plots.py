"""Plots of a candidate on the locked test split, drawn without a display and without pyplot's global state."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeloop.learning.evaluate import Predictions
from edgeloop.samples.service import Service


def plot_test(service: Service, test: Predictions, path: Path) -> None:
    """Draw a confusion matrix (classifier) or answers over truth (regressor) to a PNG; nothing for an empty split."""
    if len(test.members) == 0:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if service.is_classifier:
        _confusion(axes, service.labels or [], test)
    else:
        _scatter(axes, test)
    axes.set_title(f"{service.name}: candidate on {len(test.members)} locked test samples")
    figure.savefig(path, dpi=110)


def _confusion(axes: object, labels: list[str], test: Predictions) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, (test.truth.astype(int), test.candidate.astype(int)), 1)
    axes.imshow(counts, cmap="Blues")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("answered")
    axes.set_ylabel("right answer")
    dark = counts.max() / 2
    for row, column in zip(*np.nonzero(counts), strict=True):
        shade = "white" if counts[row, column] > dark else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)


def _scatter(axes: object, test: Predictions) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    spread = np.random.default_rng(0).uniform(-0.15, 0.15, len(test.truth))
    axes.scatter(test.truth + spread, test.candidate, s=8, alpha=0.4, linewidths=0)
    ends = [float(test.truth.min()), float(test.truth.max())]
    axes.plot(ends, ends, color="black", linewidth=1)
    axes.set_xlabel("right answer (spread sideways to show density)")
    axes.set_ylabel("answered")
