"""Progress tells rounds and stages in order, on a pipe as on a terminal, and keeps stdout for the result."""

from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from edgeloop.demo.live import Live, print_table
from tests.unit.demo.sample_run import run, turn


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """What was written, without the terminal's control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


class Clock:
    """Time that goes on by one second whenever it is looked at."""

    def __init__(self) -> None:
        self._ticks: Iterator[int] = iter(range(10**6))

    def __call__(self) -> float:
        return float(next(self._ticks))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal that can move its cursor, whatever the tests run in."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return Screen()


def play(live: Live) -> None:
    with live:
        live.note("bringing the fleet up")
        live.round(0, "")
        live.stage("train")
        live.round(1, "lenses\nget dirty")
        live.stage("stream")
        live.stage("ingest")
        live.done()
        live.stage("too late")


def test_pipe_gets_one_line_per_event_in_order() -> None:
    stream = io.StringIO()
    play(Live(stream=stream, clock=Clock()))
    assert stream.getvalue().splitlines() == [
        "[    1.0 s]   - bringing the fleet up",
        "[    2.0 s] Bootstrap",
        "[    3.0 s]   train",
        "[    4.0 s] Round 1: lenses get dirty",
        "[    5.0 s]   stream",
        "[    6.0 s]   ingest",
        "[    7.0 s] done",
    ]


def test_progress_is_on_stderr_and_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    play(Live(quiet=True))
    assert capsys.readouterr() == ("", "")
    play(Live())
    said = capsys.readouterr()
    assert said.out == ""
    assert "Round 1: lenses get dirty" in said.err


def test_terminal_ticks_stages_in_order(terminal: Screen) -> None:
    play(Live(stream=terminal))
    text = terminal.text()
    places = [text.rindex(words) for words in ("Bootstrap", "✓ train", "Round 1", "✓ stream", "✓ ingest")]
    assert places == sorted(places)
    assert "too late" not in text
    assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1


def test_terminal_takes_titles_literally(terminal: Screen) -> None:
    with Live(stream=terminal) as live:
        live.round(1, "[bold]x[/nope] \x1b[31m")
        live.stage("[red]")
    assert "Round 1: [bold]x[/nope] [31m" in terminal.text()
    assert "✓ [red]" in terminal.text()


def test_exception_marks_the_stage_and_passes_through(terminal: Screen) -> None:
    pipe = io.StringIO()
    for stream in (terminal, pipe):
        with pytest.raises(ValueError, match="boom"), Live(stream=stream) as live:
            live.stage("train")
            raise ValueError("boom")
    assert "✗ train" in terminal.text()
    assert pipe.getvalue().endswith("stopped\n")


def test_terminal_without_rich_gets_lines(terminal: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    play(Live(stream=terminal))
    assert "]   ingest\n" in terminal.getvalue()


def test_letters_that_the_stream_cannot_say_do_not_stop_the_run() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with Live(stream=stream) as live:
        live.note("drift → snow")
    stream.seek(0)
    assert "drift ? snow" in stream.read()


def count(live: Live, name: str) -> None:
    for number in range(20):
        live.note(f"{name}.{number}")


@pytest.mark.parametrize("tty", [False, True])
def test_threads_may_speak_at_once(tty: bool, terminal: Screen) -> None:
    stream = terminal if tty else io.StringIO()
    with Live(stream=stream) as live:
        threads = [threading.Thread(target=count, args=(live, name)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    told = terminal.text() if tty else stream.getvalue()
    assert all(re.search(rf"\b{name}\.{n}\s*\n", told) for name in "abcd" for n in range(20))


def test_table_says_each_round_and_where_to_look() -> None:
    out = io.StringIO()
    print_table(run(), Console(file=out, width=120))
    text = out.getvalue()
    assert text.startswith("cats-dogs: accuracy rose")
    assert re.search(r"Round 3 +600 +150 +86\.0 % +41\.0 % +Refused", text)
    assert "1 of 2 nodes serve the wanted release" in text
    assert "Prefect: http://127.0.0.1:4200" in text


def test_table_goes_to_stdout_with_or_without_rich(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(rounds=[turn(0, None, 0.5, True, reason="[red]first[/red]")])
    for missing in (False, True):
        if missing:
            monkeypatch.setitem(sys.modules, "rich.console", None)
        print_table(result)
        said = capsys.readouterr()
        assert "[red]first[/red]" in said.out
        assert said.err == ""
