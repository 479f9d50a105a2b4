"""Accuracy over rounds and the accuracy matrices, as SVG that is the same for the same figures."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.claims import RECOVERED, RECOVERED_AIM
from edgeloop.bench.stream.result import MethodResult, StreamBench

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Drawn thick; the others are context.
_LOUD = {"ours": "#0b6e4f", "sedna": "#c44536", "joint": "#1d2733", "frozen": "#8a97a6"}
#: Four colours by three dashes tell twelve others apart.
_QUIET = ("#3f7fbf", "#b07aa1", "#c98a1b", "#6b8f3c")
_DASHES = ("-", "--", ":")
_COLUMNS = 5


def curve_svg(result: StreamBench) -> str:
    """Mean accuracy over all test sets of what was deployed, round by round."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, method in enumerate(result.methods):
        means = np.mean(method.matrix, axis=1)
        loud = _LOUD.get(method.method)
        colour, dash, width = (loud, "-", 2.4) if loud else (_QUIET[number % 4], _DASHES[number % 3], 1.0)
        axes.plot(
            range(len(means)), means, dash, color=colour, linewidth=width, marker="o", markersize=3, label=method.method
        )
    axes.set_xticks(range(len(result.buckets)), result.buckets, rotation=20)
    axes.set_xlabel("deployed after bucket")
    axes.set_ylabel("mean accuracy on all test sets")
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    return _svg(figure)


def matrices_svg(result: StreamBench) -> str:
    """R[t][j] of each method as a heat map."""
    from matplotlib.figure import Figure

    count = len(result.methods)
    rows = math.ceil(count / _COLUMNS)
    figure = Figure(figsize=(2.7 * _COLUMNS, 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number < count:
            _matrix(axes, result.methods[number])
        else:
            axes.set_axis_off()
    return _svg(figure)


def _matrix(axes: Axes, method: MethodResult) -> None:
    matrix = np.array(method.matrix)
    axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_title(method.method, fontsize=9)
    axes.set_xlabel("test j", fontsize=7)
    axes.set_ylabel("round t", fontsize=7)
    axes.tick_params(labelsize=6)
    if len(matrix) > 6:
        return
    axes.set_xticks(range(matrix.shape[1]))
    axes.set_yticks(range(matrix.shape[0]))
    for (t, j), value in np.ndenumerate(matrix):
        colour = "black" if value > 0.6 else "white"
        axes.text(j, t, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)


def recovered_png(results: Sequence[StreamBench]) -> bytes:
    """Recovered fraction of every method on every stream that has something to recover, with intervals."""
    from matplotlib.figure import Figure

    shown = [r for r in results if any("recovered" in m.figures for m in r.methods)] or list(results)
    names = list(dict.fromkeys(method.method for result in shown for method in result.methods))
    figure = Figure(figsize=(max(6.0, 2.6 * len(shown)), 1.2 + 0.28 * len(names)), layout="constrained")
    grid = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, result in zip(grid, shown, strict=True):
        _recovered(axes, result, names)
    grid[0].invert_yaxis()
    figure.suptitle(
        "Part of the way from the frozen model to joint retraining, final accuracy, 95 % intervals", fontsize=10
    )
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()


def _recovered(axes: Axes, result: StreamBench, names: list[str]) -> None:
    """Bars from 0; what lies beyond the axis is clipped, for a bad method can end far below the frozen model."""
    for method in result.methods:
        part, place = method.figures.get("recovered"), names.index(method.method)
        if part is not None:
            axes.barh(place, part.value, color=_LOUD.get(method.method, "#b9c3cd"), height=0.7)
            axes.plot([part.low, part.high], [place, place], color="#1d2733", linewidth=1)
    for level, dash in ((RECOVERED, "--"), (RECOVERED_AIM, ":")):
        axes.axvline(level, color="#1d2733", linestyle=dash, linewidth=0.8)
    axes.axvline(0, color="#1d2733", linewidth=0.8)
    axes.set_xlim(-0.5, 1.25)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_title(result.stream, fontsize=10)
    axes.tick_params(axis="x", labelsize=8)


def _svg(figure: Figure) -> str:
    import matplotlib

    sink = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "edgeloop", "svg.fonttype": "none"}):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", sink.getvalue(), flags=re.DOTALL)
