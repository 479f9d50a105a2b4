"""What travels for a release, as a figure: each change beside what images and deltas of them cost."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgeloop.bench.delivery.result import LIMIT, Change, DeliveryBench

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS, _OTHERS, _INK = "#0b6e4f", "#b9c3cd", "#1d2733"
#: What a bar of parts is drawn in, the largest first.
_PARTS = ("#0b6e4f", "#3f7fbf", "#c98a1b", "#b07aa1", "#6b8f3c", "#c44536", "#8a97a6", "#5fb3b3", "#d8a0a0", "#444444")


def delivery_png(result: DeliveryBench) -> bytes:
    """Bytes by way of delivery for the three changes, and what a new head's bytes are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(3, 1.15))
    changes = {"first release": result.first, "new head": result.head, "full fine-tune": result.full}
    for number, (name, change) in enumerate(changes.items()):
        _ways(figure.add_subplot(grid[0, number]), name, change, labels=number == 0)
    _parts(figure.add_subplot(grid[1, :]), result)
    figure.suptitle(
        f"Bytes to a node: {result.labels} labels on {result.features} features, {result.rings} rings,"
        f" {result.approvals} approvals, base {result.base:.40}",
        fontsize=10,
    )
    sink = io.BytesIO()
    figure.savefig(sink, format="png", dpi=110, metadata={"Software": None})
    return sink.getvalue()


def _ways(axes: Axes, name: str, change: Change, *, labels: bool) -> None:
    ways = {
        "edgeloop node": change.travelled.bytes,
        "layers, bsdiff4": change.layers_bsdiff,
        "layers, zstd delta": change.layers_zstd,
        "image, zstd delta": change.image_zstd,
        "pull of changed layers": change.pulled,
        "full image, zstd": change.image.zstd,
        "full image, gzip": change.image.gzip,
    }
    for place, (way, count) in enumerate(ways.items()):
        if count is None:
            axes.text(1.3e3, place, "none", va="center", fontsize=8, color=_INK)
            continue
        axes.barh(place, count, color=_OURS if way == "edgeloop node" else _OTHERS, height=0.7)
        axes.text(count * 1.15, place, _short(count), va="center", fontsize=8, color=_INK)
    axes.axvline(LIMIT, color=_INK, linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(1e3, 3e9)
    axes.set_yticks(range(len(ways)), list(ways) if labels else [""] * len(ways), fontsize=8)
    axes.invert_yaxis()
    axes.set_title(name, fontsize=10)
    axes.set_xlabel("bytes; dashed: 64 KiB", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)


def _parts(axes: Axes, result: DeliveryBench) -> None:
    left = 0
    ordered = sorted(result.head.travelled.parts.items(), key=lambda part: -part[1])
    for number, (name, count) in enumerate(ordered):
        axes.barh(0, count, left=left, color=_PARTS[number % len(_PARTS)], height=0.6, label=f"{name} {count}")
        left += count
    axes.axvline(LIMIT, color=_INK, linestyle="--", linewidth=0.8)
    axes.set_yticks([])
    axes.set_xlim(0, max(LIMIT, left) * 1.04)
    axes.set_title(f"A new head: {left} bytes", fontsize=10)
    axes.tick_params(axis="x", labelsize=8)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=5, frameon=False, fontsize=8)


def _short(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.1f} kB"
