"""The page of benchmarks, written from saved results, so that no figure on it was typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from edgeloop.bench.stream.claims import Claim, claims, reason
from edgeloop.bench.stream.plots import recovered_png
from edgeloop.bench.stream.report import (
    COSTS,
    FIGURES,
    NOTE,
    about,
    accuracy_rows,
    cost_rows,
    present,
    remarks,
)
from edgeloop.bench.stream.result import StreamBench
from edgeloop.errors import BadInput

BEGIN = "<!-- begin: edgeloop bench report -->"
END = "<!-- end: edgeloop bench report -->"
_WORD = {True: "holds", False: "**not reached**", None: "cannot be told"}


class NoResult(BadInput):
    """A file is no saved result of the stream benchmark."""


class NoPlace(BadInput):
    """The page has no place for the tables."""


def read_results(paths: Sequence[Path]) -> list[StreamBench]:
    """Saved results, in the order of ``paths``.

    Raises:
        NoResult: a file is none, is of another version, or a stream is there twice.
    """
    results = [_read(path) for path in paths]
    names = [result.stream for result in results]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise NoResult(f"stream {twice[0]} is in {names.count(twice[0])} of the files: name one of them")
    return results


def _read(path: Path) -> StreamBench:
    try:
        return StreamBench.model_validate_json(path.read_bytes())
    except OSError as error:
        raise NoResult(
            f"{path} cannot be read ({error.strerror}): name a file that bench stream --json wrote"
        ) from error
    except ValidationError as error:
        where = ".".join(str(step) for step in error.errors()[0]["loc"]) or "it"
        raise NoResult(
            f"{path} is no result of this version ({where}: {error.errors()[0]['msg']}): run bench stream --json again"
        ) from error


def benchmarks_page(results: Sequence[StreamBench], before: str | None, figure: str) -> str:
    """The page with its tables renewed; what stands outside of the two marks is kept.

    Args:
        results: one per stream.
        before: the page as it was, None for a new one.
        figure: the figure's path beside the page.

    Raises:
        NoPlace: the page lacks the marks.
    """
    tables = f"{BEGIN}\n\n{_tables(results, figure)}\n{END}"
    if before is None:
        return f"# Benchmarks\n\n{tables}\n"
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise NoPlace(f"the page has no {BEGIN} followed by {END}: add both where the tables belong")
    return f"{head}{tables}{tail}"


def missed(results: Sequence[StreamBench]) -> list[str]:
    """Every requirement that is not met, with its stream."""
    return [f"{r.stream}: {claim.what}: {claim.found}" for r in results for claim in claims(r) if claim.holds is False]


def figure_of(results: Sequence[StreamBench]) -> bytes:
    """The figure, PNG."""
    return recovered_png(results)


def _tables(results: Sequence[StreamBench], figure: str) -> str:
    parts = [
        _overview(results),
        f"![Recovered fraction of every method on every stream]({figure})\n",
        f"{NOTE}\n",
        *(_stream(result) for result in results),
    ]
    return "\n".join(parts)


def _overview(results: Sequence[StreamBench]) -> str:
    """Requirements by streams."""
    found = {result.stream: {_heading(claim): claim for claim in claims(result)} for result in results}
    wanted = list(dict.fromkeys(what for of_stream in found.values() for what in of_stream))
    rows = [[what, *(_mark(of_stream.get(what)) for of_stream in found.values())] for what in wanted]
    lines = [f"- {line}" for line in missed(results)]
    lines += [f"- {result.stream}, why: {why}" for result in results if (why := reason(result))]
    said = "Not reached:\n\n" + "\n".join(lines) if lines else "Nothing was missed."
    return f"{_table(['requirement', *found], rows)}\n{said}\n"


def _heading(claim: Claim) -> str:
    """Which of Sedna's rows is the best differs by stream."""
    what, _, figure = claim.what.rpartition(", ")
    return f"ours over the best of Sedna's rows, {figure}" if "best of Sedna" in what else claim.what


def _mark(claim: Claim | None) -> str:
    return f"{_WORD[claim.holds]}: {claim.found}" if claim else ""


def _stream(result: StreamBench) -> str:
    figures = present(result)
    accuracy = _table(["method", *(FIGURES[name] for name in figures)], accuracy_rows(result, figures))
    costs = _table(["method", *COSTS], cost_rows(result))
    lines = "\n".join(f"- {line}" for line in remarks(result))
    return f"## {result.stream}\n\n{about(result)}.\n\n{lines}\n\n{accuracy}\n{costs}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
