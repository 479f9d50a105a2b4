"""The run as one page that can be kept, mailed or attached to a review: no server, script or download.

Every value is escaped where it enters the page, because reasons and titles come from outside this file.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

from edgeloop.demo.result import (
    NONE,
    DemoResult,
    FleetNode,
    Round,
    Verdict,
    headline,
    say_metric,
    say_score,
    say_seconds,
    say_verdict,
    write_whole,
)

_MARKS = {Verdict.PROMOTED: ("good", "✓"), Verdict.REFUSED: ("bad", "✕"), Verdict.NOTHING: ("idle", NONE)}

_STYLE = """
:root { color-scheme: light dark; --ground: #f4f6f8; --card: #fff; --ink: #1b2430; --soft: #5b6672;
  --line: #d9dee4; --blue: #0b5cad; --bar: #a9c8e8; --good: #0b5cad; --bad: #b3212a; --tint: #fbeceb; }
@media (prefers-color-scheme: dark) { :root { --ground: #11161c; --card: #1a2129; --ink: #e8edf2;
  --soft: #a3afbb;
  --line: #333e49; --blue: #7db8f0; --bar: #2f5f8f; --good: #7db8f0; --bad: #ff8f8a; --tint: #3a2226; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 3rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.25rem 0 .6rem; }
p { max-width: 46rem; margin: .4rem 0; overflow-wrap: anywhere; }
.soft, caption, dt { color: var(--soft); }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr));
  gap: .75rem; margin: 1.25rem 0; }
dl.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .7rem .9rem; }
dt { font-size: .85rem; } dl.facts dd { margin: 0; font-size: 1.2rem; font-weight: 600; }
figure { margin: 1.25rem 0 0; background: #fff; border: 1px solid var(--line); border-radius: .6rem;
  overflow: hidden; }
figure img { display: block; width: 100%; height: auto; padding: .6rem; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .6rem .7rem; font-size: .875rem; }
th, td { text-align: left; vertical-align: top; padding: .5rem .7rem; border-top: 1px solid var(--line); }
thead th { font-size: .8rem; line-height: 1.3; font-weight: 600; color: var(--soft); vertical-align: bottom; }
thead th.num { white-space: normal; }
tbody th { font-weight: 600; white-space: nowrap; }
.num { text-align: right; white-space: nowrap; }
td small, th small { display: block; font-weight: 400; color: var(--soft); font-size: .85rem;
  overflow-wrap: anywhere; }
th small { white-space: normal; min-width: 9rem; }
.why { min-width: 16rem; } .good { color: var(--good); } .bad { color: var(--bad); }
.idle { color: var(--soft); }
td strong, .state { white-space: nowrap; }
tr.wrong > * { background: var(--tint); }
.tag { display: inline-block; border: 1px solid var(--bad); border-radius: .3rem; padding: 0 .35rem;
  font-size: .75rem; font-weight: 600; color: var(--bad); margin-left: .3rem; }
code { font: .9em ui-monospace, "Liberation Mono", monospace; } code[title] { cursor: help; }
.bar { display: block; height: .3rem; border-radius: .15rem; background: var(--bar);
  margin: .25rem 0 0 auto; }
a { color: var(--blue); } ul { padding-left: 1.2rem; } li { overflow-wrap: anywhere; }
@media print { body { background: #fff; } .wide { overflow: visible; } }
"""


def write_report(result: DemoResult, path: Path, plot: bytes) -> None:
    """Write the run to ``path`` as one HTML file with ``plot`` (a PNG) inside it.

    Raises NotWritten where ``path`` cannot be written.
    """
    write_whole(path, report_page(result, plot).encode())


def report_page(result: DemoResult, plot: bytes) -> str:
    """The page as text; it refers to nothing outside itself but the pages a person may go to."""
    said = headline(result)
    parts = [
        f"<h1>{_text(said)}</h1>",
        f'<p class="soft">{escape(_what_this_is(result))}</p>',
        _facts(result),
        _picture(result, plot),
        _rounds(result),
        _fleet(result),
        _times(result),
        _pages(result),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f'<title>{escape(result.service)}: edgeloop demo</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"
    )


def _what_this_is(result: DemoResult) -> str:
    what = (
        f"A run of edgeloop's demo in {say_seconds(result.seconds)}: nodes serve {result.service}, samples "
        "come back, a candidate is trained, and only one that beats the champion on locked samples "
        "goes to the fleet."
    )
    return f"{what} {result.simulated}" if result.simulated else what


def _facts(result: DemoResult) -> str:
    turns = [turn for turn in result.rounds if turn.round > 0]
    seen, sent = sum(turn.seen for turn in result.rounds), sum(turn.sent for turn in result.rounds)
    first, last = (say_score(result.metric, score) for score in (result.accuracy.first, result.accuracy.last))
    promoted = sum(turn.promoted for turn in turns)
    refused = sum(turn.verdict is Verdict.REFUSED for turn in turns)
    settled = sum(node.settled for node in result.fleet)
    facts = [
        (f"Champion's {say_metric(result.metric)}", f"{first} → {last}"),
        ("After the bootstrap", f"{promoted} promoted, {refused} refused"),
        (
            "Samples sent of inputs seen",
            f"{sent} of {seen}" + (f" ({100 * sent / seen:.0f} %)" if seen else ""),
        ),
        ("Nodes on the wanted release", f"{settled} of {len(result.fleet)}"),
    ]
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts">{cells}</dl>'


def _picture(result: DemoResult, plot: bytes) -> str:
    metric = say_metric(result.metric)
    told = "; ".join(
        f"{turn.name}: champion {say_score(result.metric, turn.champion_accuracy)} before, "
        f"{say_score(result.metric, turn.standing)} after, {turn.verdict}"
        for turn in result.rounds
    )
    data = base64.b64encode(plot).decode()
    alternative = escape(f"The champion's {metric} per round. {told}.")
    source = f"data:image/png;base64,{data}"
    return f'<figure><img src="{source}" width="1600" height="900" alt="{alternative}"></figure>'


def _table(caption: str, heads: Iterable[tuple[str, str]], rows: Iterable[str]) -> str:
    """A table in a box that scrolls sideways; ``heads`` are a class and a text, ``rows`` are ready HTML."""
    cells = "".join(f'<th scope="col" class="{kind}">{escape(text)}</th>' for kind, text in heads)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table>\n<caption>{escape(caption)}</caption>\n<thead><tr>{cells}</tr></thead>\n"
        "<tbody>\n" + "\n".join(rows) + "\n</tbody>\n</table></div>"
    )


def _rounds(result: DemoResult) -> str:
    metric = say_metric(result.metric)
    heads = [("", "Round"), ("num", "Seen"), ("num", "Sent"), ("num", "Labelled"), ("num", "Quarantined")]
    heads += [
        ("num", "Champion before"),
        ("num", "Candidate"),
        ("why", "Verdict and why"),
        ("num", "Version after"),
    ]
    caption = (
        f"Each round from left to right, with {metric} on the locked test split. "
        "The champion is the model approved for the fleet; the candidate is what the round trained."
    )
    rows = (_round_row(result, turn) for turn in result.rounds)
    return "<h2>Rounds</h2>\n" + _table(caption, heads, rows)


def _round_row(result: DemoResult, turn: Round) -> str:
    kind, mark = _MARKS[turn.verdict]
    tag = '<span class="tag">wrong labels</span>' if turn.wrong_labels else ""
    counts = "".join(_num(str(count)) for count in (turn.seen, turn.sent, turn.labelled, turn.quarantined))
    scores = "".join(
        _num(say_score(result.metric, score)) for score in (turn.champion_accuracy, turn.candidate_accuracy)
    )
    return (
        f'<tr{_wrong(turn)}><th scope="row">{turn.name}{tag}<small>{escape(turn.title)}</small></th>'
        f'{counts}{scores}<td class="why"><strong class="{kind}"><span aria-hidden="true">{mark}</span> '
        f"{escape(say_verdict(turn))}</strong><small>{escape(turn.reason)}</small></td>"
        f"{_num(turn.version or NONE)}</tr>"
    )


def _wrong(turn: Round) -> str:
    return ' class="wrong"' if turn.wrong_labels else ""


def _num(text: str) -> str:
    return f'<td class="num">{_text(text)}</td>'


def _text(words: str) -> str:
    """``words`` escaped, with numbers kept on one line with their unit."""
    return escape(words).replace(" %", "&nbsp;%")


def _fleet(result: DemoResult) -> str:
    if not result.fleet:
        return '<h2>Fleet</h2>\n<p class="soft">No node reported.</p>'
    heads = [("", "Node"), ("num", "Ring"), ("", "Serving"), ("", "Wanted"), ("", "State")]
    caption = "What each node serves at the end; a release is named by the digest of its manifest."
    return "<h2>Fleet</h2>\n" + _table(caption, heads, map(_node_row, result.fleet))


def _node_row(node: FleetNode) -> str:
    state = '<span class="state good">✓ serves what is wanted</span>'
    if not node.settled:
        what = "another release" if node.serving else "nothing"
        state = f'<span class="state bad">✕ serves {what}</span>'
        if node.wanted is None:
            state = f'<span class="state idle">{NONE} nothing is wanted</span>'
    return (
        f'<tr><th scope="row">{escape(node.node)}</th>{_num(str(node.ring))}'
        f"<td>{_digest(node.serving)}</td><td>{_digest(node.wanted)}</td><td>{state}</td></tr>"
    )


def _digest(name: str | None) -> str:
    """The first twelve digits, with the whole digest for who points at it."""
    if name is None:
        return NONE
    return f'<code title="{escape(name)}">{escape(name.removeprefix("sha256:")[:12])}</code>'


def _times(result: DemoResult) -> str:
    stages = list(dict.fromkeys(stage for turn in result.rounds for stage in turn.seconds))
    if not stages:
        return ""
    longest = max((spent for turn in result.rounds for spent in turn.seconds.values()), default=0.0)
    heads = [("", "Round"), *(("num", stage) for stage in stages), ("num", "total")]
    rows = (_time_row(turn, stages, longest) for turn in result.rounds)
    return "<h2>Where the time went</h2>\n" + _table("Time per stage of each round.", heads, rows)


def _time_row(turn: Round, stages: list[str], longest: float) -> str:
    cells = "".join(_time(turn.seconds.get(stage), longest) for stage in stages)
    total = _num(say_seconds(sum(turn.seconds.values())))
    return f'<tr{_wrong(turn)}><th scope="row">{turn.name}</th>{cells}{total}</tr>'


def _time(spent: float | None, longest: float) -> str:
    if spent is None:
        return _num(NONE)
    # A fixed unit, not a part of the cell: columns differ in width and bars must not.
    long = 4.5 * spent / longest if longest else 0.0
    return f'<td class="num">{say_seconds(spent)}<span class="bar" style="width: {long:.2f}rem"></span></td>'


def _pages(result: DemoResult) -> str:
    named = [("Prefect", "runs, logs and artifacts", result.pages.prefect)]
    named += [("MLflow", "experiments, models and versions", result.pages.mlflow)]
    items = "".join(
        f"<li>{name} ({what}): {_link(address)}</li>" for name, what, address in named if address is not None
    )
    if not items:
        return ""
    return f"<h2>While the demo is up</h2>\n<ul>{items}</ul>"


def _link(address: str) -> str:
    """A link for a web address; anything else stays text, so that a page never carries a script in a link."""
    shown = escape(address)
    try:
        web = urlsplit(address).scheme in ("http", "https")
    except ValueError:
        web = False
    return f'<a href="{shown}" rel="noreferrer">{shown}</a>' if web else f"<code>{shown}</code>"
