"""The table for a terminal, and the page that holds everything and needs nothing beside it."""

from __future__ import annotations

import html
from pathlib import Path

from edgeloop.bench.stream.plots import curve_svg, matrices_svg
from edgeloop.bench.stream.result import Interval, MethodResult, StreamBench

FIGURES = {
    "final": "final ACC",
    "near_future": "near future",
    "prequential": "prequential",
    "recovered": "recovered",
    "bwt": "BWT",
    "fwt": "FWT",
    "forgetting": "forgetting",
}
COSTS = ["labels", "% of pool", "% sent", "kB sent", "CPU s", "promoted", "held", "false +", "false -", "candidate"]
NOTE = (
    "In square brackets: 95 % intervals, paired bootstrap over seeds and groups of the test sets. Labels, bytes, "
    "promotions and CPU-seconds are means per seed. false +: promoted and worse on the locked test; false -: held and "
    "better by a point or more; candidate: mean accuracy of the last candidate, deployed or not. Gate labels are the "
    "same for all methods and are not counted."
)
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;color:#1d2733}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.25rem .6rem;text-align:right;"
    "border-bottom:1px solid #d8dee6;white-space:nowrap}td:first-child,th:first-child{text-align:left}"
    "small{color:#5b6876}svg{max-width:100%;height:auto}"
)


def stream_text(result: StreamBench) -> str:
    """Methods by metrics with intervals, and what they cost."""
    figures = [name for name in FIGURES if any(name in m.figures for m in result.methods)]
    first = [[m.method, *(_cell(m.figures.get(name)) for name in figures)] for m in result.methods]
    lines = [_title(result), "", _columns(first, ["method", *(FIGURES[name] for name in figures)])]
    lines += ["", _columns([[m.method, *_costs(m)] for m in result.methods], ["method", *COSTS])]
    lines += ["", *_remarks(result), NOTE]
    return "\n".join(lines)


def _columns(rows: list[list[str]], header: list[str]) -> str:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    padded = ([c.ljust(w) for c, w in zip(row, widths, strict=True)] for row in [header, *rows])
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _title(result: StreamBench) -> str:
    return (
        f"{result.stream}: {' -> '.join(result.buckets)}; {result.seeds} seeds, at most {result.limit} rows a bucket,"
        f" labels {result.delay} rounds late, {result.seconds:.0f} s"
    )


def _cell(figure: Interval | None) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" if figure else "-"


def _costs(method: MethodResult) -> list[str]:
    return [
        f"{method.labels:.0f}",
        f"{method.label_share:.1%}",
        f"{method.upload_share:.1%}",
        f"{method.bytes / 1000:.0f}",
        f"{method.cpu_seconds:.2f}",
        f"{method.promotions:.1f}",
        f"{method.held:.1f}",
        f"{method.false_promotions:.1f}",
        f"{method.false_rejections:.1f}",
        f"{method.final_candidate:.3f}",
    ]


def _remarks(result: StreamBench) -> list[str]:
    found = []
    by_name = {m.method: m for m in result.methods}
    if "ours" in by_name and by_name["ours"].over_sedna:
        found += [f"ours over sedna, {FIGURES[k]}: {_cell(v)}" for k, v in by_name["ours"].over_sedna.items()]
        for what in ("labels", "bytes"):
            mine, theirs = getattr(by_name["ours"], what), getattr(by_name["sedna"], what)
            found.append(f"ours spends {mine:.0f} {what}, sedna {theirs:.0f}{' (more)' if mine > theirs else ''}")
    if result.same_as_last:
        found.append(f"same as last: {_cell(result.same_as_last)} over the pools, to hold against prequential")
    if not any("recovered" in m.figures for m in result.methods):
        found.append("recovered: joint is not 2 points above frozen, so there is nothing to recover")
    return found


def stream_html(result: StreamBench) -> str:
    """One page with tables, the accuracy matrices and the curve over rounds; no script, nothing from elsewhere."""
    figures = [name for name in FIGURES if any(name in m.figures for m in result.methods)]
    first = [[m.method, *(_cell(m.figures.get(name)) for name in figures)] for m in result.methods]
    about = "".join(f"<li><b>{html.escape(m.method)}</b> {html.escape(m.about)}</li>" for m in result.methods)
    remarks = "".join(f"<li>{html.escape(line)}</li>" for line in _remarks(result))
    title = html.escape(result.stream)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>edgeloop bench stream: {title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1><p>{html.escape(_title(result))}</p><ul>{remarks}</ul>"
        f"{_table(['method', *(FIGURES[n] for n in figures)], first)}"
        f"<h2>What it cost</h2>{_table(['method', *COSTS], [[m.method, *_costs(m)] for m in result.methods])}"
        f"<p><small>{html.escape(NOTE)}</small></p><h2>Accuracy over rounds</h2>{curve_svg(result)}"
        f"<h2>Accuracy after round t on test j</h2>{matrices_svg(result)}<h2>Methods</h2><ul>{about}</ul></html>\n"
    )


def _table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def write_report(path: Path, content: str) -> None:
    """Write beside, then rename; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)
