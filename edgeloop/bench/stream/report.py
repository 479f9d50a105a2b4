"""The table for a terminal, and the page that holds everything and needs nothing beside it."""

from __future__ import annotations

import html
from pathlib import Path

from edgeloop.bench.stream.claims import cell, claims, reason
from edgeloop.bench.stream.plots import curve_svg, matrices_svg
from edgeloop.bench.stream.result import MethodResult, StreamBench

FIGURES = {
    "final": "final ACC",
    "near_future": "near future",
    "prequential": "prequential",
    "recovered": "recovered",
    "bwt": "BWT",
    "fwt": "FWT",
    "forgetting": "forgetting",
}
COSTS = [
    "labels", "% of pool", "% sent", "kB sent", "CPU s", "slowest", "promoted", "held", "over budget",
    "false +", "false -", "candidate",
]  # fmt: skip
NOTE = (
    "In square brackets: 95 % intervals, paired bootstrap over seeds and groups of the test sets. Labels, bytes, "
    "promotions and CPU-seconds are means per seed; slowest: CPU-seconds of the longest round to learn; over budget: "
    "dropped, for learning took longer than it may; false +: promoted and worse on the locked test; false -: held and "
    "better by a point or more; candidate: mean accuracy of the last candidate, deployed or not. Gate labels are the "
    "same for all methods and are not counted."
)
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;color:#1d2733}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.25rem .6rem;text-align:right;"
    "border-bottom:1px solid #d8dee6;white-space:nowrap}td:first-child,th:first-child{text-align:left}"
    "small{color:#5b6876}svg{max-width:100%;height:auto}"
)


def present(result: StreamBench) -> list[str]:
    """The figures that the result has."""
    return [name for name in FIGURES if any(name in m.figures for m in result.methods)]


def accuracy_rows(result: StreamBench, figures: list[str]) -> list[list[str]]:
    """Each method's figures with intervals."""
    return [[m.method, *(cell(m.figures.get(name)) for name in figures)] for m in result.methods]


def cost_rows(result: StreamBench) -> list[list[str]]:
    """What each method cost, in the order of :data:`COSTS`."""
    return [[m.method, *_costs(m)] for m in result.methods]


def stream_text(result: StreamBench) -> str:
    """Methods by metrics with intervals, and what they cost."""
    figures = present(result)
    first = accuracy_rows(result, figures)
    lines = [about(result), "", _columns(first, ["method", *(FIGURES[name] for name in figures)])]
    lines += ["", _columns(cost_rows(result), ["method", *COSTS])]
    lines += ["", *remarks(result), NOTE]
    return "\n".join(lines)


def _columns(rows: list[list[str]], header: list[str]) -> str:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in [header, *rows])
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def about(result: StreamBench) -> str:
    """What was run, on a line."""
    return (
        f"{result.stream}: {' -> '.join(result.buckets)}; {result.seeds} seeds, at most {result.limit} rows a bucket,"
        f" labels {result.delay} rounds late, {result.budget:g} CPU-seconds a round to learn, {result.seconds:.0f} s"
    )


def _costs(method: MethodResult) -> list[str]:
    return [
        f"{method.labels:.0f}",
        f"{method.label_share:.1%}",
        f"{method.upload_share:.1%}",
        f"{method.bytes / 1000:.0f}",
        f"{method.cpu_seconds:.2f}",
        f"{method.slowest:.2f}",
        f"{method.promotions:.1f}",
        f"{method.held:.1f}",
        f"{method.over_budget:.1f}",
        f"{method.false_promotions:.1f}",
        f"{method.false_rejections:.1f}",
        f"{method.final_candidate:.3f}",
    ]


def remarks(result: StreamBench) -> list[str]:
    """What the tables do not say."""
    found = [claim.line for claim in claims(result)]
    if why := reason(result):
        found.append(f"why: {why}")
    bad = [f"{name} {n}" for name, n in zip(result.buckets, result.contradictory, strict=True) if n]
    if bad:
        found.append(
            f"contradictory labels, rows that equal another of their bucket but for the label: {', '.join(bad)}"
        )
    if result.same_as_last:
        found.append(f"same as last: {cell(result.same_as_last)} over the pools, to hold against prequential")
    if not any("recovered" in m.figures for m in result.methods):
        found.append("recovered: joint is not 2 points above frozen, so there is nothing to recover")
    return found


def stream_html(result: StreamBench) -> str:
    """One page with tables, the accuracy matrices and the curve over rounds; no script, nothing from elsewhere."""
    figures = present(result)
    first = accuracy_rows(result, figures)
    methods = "".join(f"<li><b>{html.escape(m.method)}</b> {html.escape(m.about)}</li>" for m in result.methods)
    notes = "".join(f"<li>{html.escape(line)}</li>" for line in remarks(result))
    title = html.escape(result.stream)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>edgeloop bench stream: {title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{html.escape(about(result))}</p><ul>{notes}</ul>"
        f"{_table(['method', *(FIGURES[n] for n in figures)], first)}"
        f"<h2>What it cost</h2>{_table(['method', *COSTS], cost_rows(result))}"
        f"<p><small>{html.escape(NOTE)}</small></p><h2>Accuracy over rounds</h2>{curve_svg(result)}"
        f"<h2>Accuracy after round t on test j</h2>{matrices_svg(result)}<h2>Methods</h2><ul>{methods}</ul></html>\n"
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write_report(path: Path, content: str) -> None:
    """Write text as :func:`write_bytes` does."""
    write_bytes(path, content.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside, then rename; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_bytes(content)
    beside.replace(path)
