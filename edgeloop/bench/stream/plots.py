"""Accuracy over rounds and the accuracy matrices, as SVG that is the same for the same figures."""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.bench.stream.result import MethodResult, StreamBench

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Drawn thick; the others are context.
_LOUD = {"ours": "#0b6e4f", "sedna": "#c44536", "joint": "#1d2733", "frozen": "#8a97a6"}
_COLUMNS = 5


def curve_svg(result: StreamBench) -> str:
    """Mean accuracy over all test sets of what was deployed, round by round."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for method in result.methods:
        means = np.mean(method.matrix, axis=1)
        loud = _LOUD.get(method.method)
        style = {"color": loud, "linewidth": 2.4} if loud else {"linewidth": 1.0, "alpha": 0.7}
        axes.plot(range(len(means)), means, marker="o", markersize=3, label=method.method, **style)
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


def _svg(figure: Figure) -> str:
    import matplotlib

    sink = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "edgeloop", "svg.fonttype": "none"}):
        figure.savefig(sink, format="svg", metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", sink.getvalue(), flags=re.DOTALL)
