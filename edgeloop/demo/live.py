"""What a person sees while the demo runs, so that minutes of work do not look like minutes of hanging.

Everything goes to stderr: stdout belongs to the result.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, TYPE_CHECKING, Protocol, Self

from edgeloop.demo.result import (
    DemoResult,
    Round,
    Verdict,
    headline,
    say_metric,
    say_score,
    say_seconds,
    say_verdict,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live as RichLive
    from rich.text import Text

Clock = Callable[[], float]


class _Display(Protocol):
    """Where progress is shown."""

    def round(self, title: str) -> None: ...
    def stage(self, name: str) -> None: ...
    def note(self, text: str) -> None: ...
    def close(self, *, failed: bool) -> None: ...


class Live:
    """Progress of the demo: live on a terminal, plain lines in a pipe, nothing when ``quiet``.

    Any thread may call it. Leaving the context ends it, with a cross at the stage that an exception stopped.
    """

    def __init__(self, quiet: bool = False, *, stream: IO[str] | None = None, clock: Clock = time.monotonic) -> None:
        self._quiet = quiet
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._display: _Display | None = None

    def __enter__(self) -> Self:
        if not self._quiet:
            self._display = _display(self._stream or sys.stderr, self._clock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(failed=error is not None)

    def round(self, number: int, title: str) -> None:
        """Begin a round, which ends the one before; round 0 is the bootstrap."""
        named = "Bootstrap" if number == 0 else f"Round {number}"
        self._show(lambda display: display.round(f"{named}: {_line(title)}" if title else named))

    def stage(self, name: str) -> None:
        """Begin a stage of the round, which ends the one before."""
        self._show(lambda display: display.stage(_line(name)))

    def note(self, text: str) -> None:
        """Say something that is worth a line of its own."""
        self._show(lambda display: display.note(_line(text)))

    def done(self) -> None:
        """End the last stage and the display; what is said afterwards is dropped."""
        self._close(failed=False)

    def _show(self, say: Callable[[_Display], None]) -> None:
        with self._lock:
            if self._display is not None:
                say(self._display)

    def _close(self, *, failed: bool) -> None:
        with self._lock:
            display, self._display = self._display, None
            if display is not None:
                display.close(failed=failed)


def _display(stream: IO[str], clock: Clock) -> _Display:
    """Rich on a terminal that can move its cursor, else lines."""
    if not stream.isatty():
        return _Lines(stream, clock)
    try:
        from rich.console import Console
    except ImportError:
        return _Lines(stream, clock)
    console = Console(file=stream)
    return _Terminal(console, clock) if console.is_terminal and not console.is_dumb_terminal else _Lines(stream, clock)


def _line(text: str) -> str:
    """``text`` on one line, without characters that would steer a terminal."""
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())


def _writable(text: str, encoding: str | None) -> str:
    """``text`` with a question mark for what the stream's encoding cannot say."""
    code = encoding or "utf-8"
    return text.encode(code, "replace").decode(code)


class _Lines:
    """One line per event, with the time since the start, for logs and pipes."""

    def __init__(self, stream: IO[str], clock: Clock) -> None:
        self._stream, self._clock = stream, clock
        self._began = clock()

    def round(self, title: str) -> None:
        self._say(title)

    def stage(self, name: str) -> None:
        self._say(f"  {name}")

    def note(self, text: str) -> None:
        self._say(f"  - {text}")

    def close(self, *, failed: bool) -> None:
        self._say("stopped" if failed else "done")

    def _say(self, text: str) -> None:
        line = f"[{self._clock() - self._began:7.1f} s] {text}\n"
        self._stream.write(_writable(line, getattr(self._stream, "encoding", None)))
        self._stream.flush()


@dataclass
class _Item:
    """A stage or, where ``began`` is None, a note."""

    text: str
    began: float | None = None
    ended: float | None = None
    failed: bool = False

    def end(self, at: float, *, failed: bool = False) -> None:
        if self.began is not None and self.ended is None:
            self.ended, self.failed = at, failed


@dataclass
class _Block:
    """What is on the screen and still changes: one round with its stages and notes."""

    title: str | None
    began: float
    items: list[_Item] = field(default_factory=list)


class _Terminal:
    """The current round with its stages, redrawn in place; rounds that ended scroll up and stay."""

    def __init__(self, console: Console, clock: Clock) -> None:
        from rich.live import Live as RichLive
        from rich.spinner import Spinner

        self._console, self._clock = console, clock
        # One spinner for the whole run: a new one per redraw would never turn.
        self._spinner = Spinner("dots" if _speaks_unicode(console) else "line", style="blue")
        self._block = _Block(None, clock())
        # Taken for each change and each redraw: rich draws from a thread of its own.
        self._lock = threading.RLock()
        self._live: RichLive = RichLive(
            get_renderable=self._drawn,
            # Where stdout is a file, what is printed belongs there and not on the screen.
            redirect_stdout=sys.stdout.isatty(),
            console=console,
            refresh_per_second=8,
            transient=True,
        )
        self._live.start()

    def round(self, title: str) -> None:
        self._finish()
        with self._lock:
            self._block = _Block(title, self._clock())

    def stage(self, name: str) -> None:
        with self._lock:
            self._end_stage()
            self._block.items.append(_Item(name, began=self._clock()))

    def note(self, text: str) -> None:
        with self._lock:
            self._block.items.append(_Item(text))

    def close(self, *, failed: bool) -> None:
        self._finish(failed=failed)
        self._live.stop()

    def _finish(self, *, failed: bool = False) -> None:
        """Print the block as it ended, above what still changes."""
        with self._lock:
            self._end_stage(failed=failed)
            ended, self._block = self._block, _Block(None, self._clock())
        # Else the block that ended is drawn once more below its printed self, until the next redraw.
        self._live.refresh()
        if ended.title or ended.items:
            self._console.print(self._draw(ended, over=True))

    def _end_stage(self, *, failed: bool = False) -> None:
        for item in self._block.items:
            item.end(self._clock(), failed=failed)

    def _drawn(self) -> RenderableType:
        with self._lock:
            return self._draw(self._block, over=False)

    def _draw(self, block: _Block, *, over: bool) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=2)
        grid.add_column(overflow="fold")
        grid.add_column(justify="right")
        now = self._clock()
        if block.title:
            spent = say_seconds(now - block.began)
            grid.add_row("", Text(self._said(block.title), style="bold"), Text(spent, style="bold"))
        for item in block.items:
            ended = now if item.ended is None else item.ended
            spent = "" if item.began is None else say_seconds(ended - item.began)
            style = "dim" if item.began is None else ""
            grid.add_row(self._mark(item, over), Text(self._said(item.text), style=style), Text(spent, style="dim"))
        return grid

    def _mark(self, item: _Item, over: bool) -> RenderableType:
        from rich.text import Text

        unicode = _speaks_unicode(self._console)
        if item.began is None:
            return Text(" ·" if unicode else " -", style="dim")
        if item.ended is None and not over:
            return self._spinner
        if item.failed:
            return Text(" ✗" if unicode else " x", style="bold red")
        return Text(" ✓" if unicode else " +", style="green")

    def _said(self, text: str) -> str:
        return _writable(text, self._console.encoding)


def _speaks_unicode(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


_STYLES = {Verdict.PROMOTED: "blue", Verdict.REFUSED: "bold red", Verdict.NOTHING: "dim"}


def print_table(result: DemoResult, console: Console | None = None) -> None:
    """Print the run as a table, its sentence above and its pages below; on stdout without a ``console``.

    Where rich is not installed the same is said in plain lines.
    """
    try:
        from rich.console import Console
    except ImportError:
        sys.stdout.write(_writable(_plain(result), sys.stdout.encoding))
        return
    _print_rich(result, console or Console())


def _print_rich(result: DemoResult, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    def text(words: str, style: str = "") -> Text:
        return Text(_writable(_line(words), console.encoding), style=style)

    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for head, right in _HEADS:
        table.add_column(text(head), justify="right" if right else "left", overflow="fold")
    for turn in result.rounds:
        style = _STYLES[turn.verdict]
        *cells, verdict = _cells(result, turn)
        why = Text("\n").join([text(verdict, style), text(turn.reason, "dim")])
        table.add_row(*map(text, cells), why)
    console.print(text(headline(result), "bold"))
    console.print()
    console.print(table)
    _print_below(result, console, text)


def _print_below(result: DemoResult, console: Console, text: Callable[[str, str], Text]) -> None:
    console.print()
    for line in _below(result):
        console.print(text(line, ""), soft_wrap=True)


_HEADS = (
    ("", False),
    ("seen", True),
    ("sent", True),
    ("before", True),
    ("candidate", True),
    ("verdict", False),
)


def _cells(result: DemoResult, turn: Round) -> tuple[str, ...]:
    before, candidate = (say_score(result.metric, s) for s in (turn.champion_accuracy, turn.candidate_accuracy))
    return (turn.name, str(turn.seen), str(turn.sent), before, candidate, say_verdict(turn))


def _below(result: DemoResult) -> list[str]:
    """What is simulated, how long it took, and where to look."""
    settled = sum(node.settled for node in result.fleet)
    lines = [
        f"{settled} of {len(result.fleet)} nodes serve the wanted release; {say_metric(result.metric)} "
        f"is measured on the locked test split; {say_seconds(result.seconds)} in all."
    ]
    lines += [result.simulated] if result.simulated else []
    pages = result.pages
    named = (
        ("report", pages.report),
        ("plot", pages.plot),
        ("Prefect", pages.prefect),
        ("MLflow", pages.mlflow),
    )
    return lines + [f"{name}: {address}" for name, address in named if address]


def _plain(result: DemoResult) -> str:
    rows = [" ".join(_cells(result, turn)) + f" ({_line(turn.reason)})" for turn in result.rounds]
    return "\n".join([headline(result), "", *rows, "", *_below(result)]) + "\n"
