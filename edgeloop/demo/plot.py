"""The loop in one picture, because a table does not show a refused candidate hanging below the champion.

Drawn for a page 800 px wide: the file is twice that, and the smallest text in it is 20 px high.
Each round is a column that reads left to right: the champion before, the candidate, the champion after.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.demo.result import (
    DemoResult,
    Round,
    Verdict,
    headline,
    say_metric,
    say_score,
    write_whole,
)
from edgeloop.errors import MissingExtra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Blue and red that stay apart for every common colour vision; shape and words say the same again.
BLUE, RED, INK, GREY, PALE, TINT = "#0b5cad", "#c4262e", "#1b2430", "#5b6672", "#d9dee4", "#fbeceb"
FONT = "DejaVu Sans"
DPI, WIDTH, HEIGHT = 200, 1600, 900
#: The figure in points, and its axes in parts of the figure.
WIDE, TALL = 72 * WIDTH / DPI, 72 * HEIGHT / DPI
LEFT, BOTTOM, ACROSS = 0.07, 0.215, 0.915
#: Points kept free beyond the outermost marks: for a score, and for a score with the reason of a refusal.
NEAR, FAR = 25, 62
#: Offsets of the champion before and after from the middle of a round's column.
ASIDE = 0.27
#: Line of the champion between two rounds.
DOTS = (0, (1, 1.6))
#: From this many rounds on a column is too narrow for words.
CROWDED = 8


@dataclass(frozen=True)
class Frame:
    """Axes with what every mark on them needs to know."""

    axes: Axes
    result: DemoResult

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        """Put literal words ``dy`` points above a place in data units, on a ground that hides the grid."""
        from matplotlib.patheffects import withStroke

        dy, ground = style.pop("dy", 0.0), style.pop("ground", "white")
        given: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "fontsize": 8,
            "color": INK,
            "linespacing": 1.25,
        } | style
        self.axes.annotate(
            _drawable(words),
            (x, y),
            xytext=(0, dy),
            textcoords="offset points",
            fontfamily=FONT,
            parse_math=False,
            zorder=6,
            path_effects=[withStroke(linewidth=3, foreground=ground)],
            **given,
        )

    @property
    def column(self) -> float:
        """Width of a round's column, less a gap, in points."""
        return 0.9 * ACROSS * WIDE / max(len(self.result.rounds), 2)

    @property
    def crowded(self) -> bool:
        """Whether columns are too narrow for words."""
        return len(self.result.rounds) >= CROWDED


def draw_loop(result: DemoResult, path: Path) -> bytes:
    """Write the picture of a run to ``path`` as a PNG of 1600 x 900 pixels and return its bytes.

    Raises MissingExtra where matplotlib is not installed and NotWritten where ``path`` cannot be written.
    """
    figure = loop_figure(result)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    png = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(png)
    write_whole(path, png.getvalue())
    return png.getvalue()


def loop_figure(result: DemoResult) -> Figure:
    """The picture as a figure of its own, without pyplot's state. Raises MissingExtra."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "cloud") from error
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    top = _headings(figure, result)
    axes = figure.add_axes((LEFT, BOTTOM, ACROSS, top - BOTTOM))
    frame = Frame(axes, result)
    _dress(frame, (top - BOTTOM) * TALL)
    _between_rounds(frame)
    for place, turn in enumerate(result.rounds):
        _column(frame, place, turn)
        _draw_round(frame, place, turn)
    _name_the_marks(figure, result)
    return figure


def _headings(figure: Figure, result: DemoResult) -> float:
    """Write title and subtitle; return where they end, as a part of the figure's height."""
    y = 0.965
    for words, size, weight, most in (
        (headline(result), 12.5, "bold", 2),
        (_subtitle(result), 8.2, "normal", 3),
    ):
        lines = wrap(words, size, 0.964 * WIDE, most, weight)
        figure.text(0.018, y, "\n".join(lines), fontsize=size, weight=weight, **_heading_style(weight))
        y -= (len(lines) * size * 1.4 + 6) / TALL
    return y - 0.015


def _heading_style(weight: str) -> dict[str, Any]:
    place = {"ha": "left", "va": "top", "linespacing": 1.3, "color": INK if weight == "bold" else GREY}
    return place | {"fontfamily": FONT, "parse_math": False}


def _subtitle(result: DemoResult) -> str:
    metric = say_metric(result.metric)
    measured = f"The champion's {metric} on the locked test split, before and after each round."
    return f"{measured} {result.simulated}" if result.simulated else measured


def _extent(result: DemoResult) -> tuple[float, float]:
    """Lowest and highest score that is drawn, never so close that noise fills the picture."""
    candidates = [turn.candidate_accuracy for turn in result.rounds if turn.candidate_accuracy is not None]
    scores = [max(score, _floor(result)) for score in candidates] + _champions(result)
    low, high = min(scores), max(scores)
    spare = max(0.0, 0.04 - (high - low)) / 2
    return low - spare, high + spare


def _champions(result: DemoResult) -> list[float]:
    """Every score of a champion in the run, before and after the rounds."""
    scores = [score for turn in result.rounds for score in (turn.champion_accuracy, turn.standing)]
    return [score for score in scores if score is not None] or [result.accuracy.last]


def _floor(result: DemoResult) -> float:
    """Where a refused candidate is drawn at the lowest, so that it does not flatten the champion's steps."""
    champions = _champions(result)
    return min(champions) - max(2 * (max(champions) - min(champions)), 0.15)


def _dress(frame: Frame, tall: float) -> None:
    """Limits, grid and ticks of axes that are ``tall`` points high."""
    axes, count = frame.axes, len(frame.result.rounds)
    axes.set_xlim(-0.5, max(count, 2) - 0.5)
    axes.set_ylim(*_limits(frame.result, tall))
    axes.set_xticks([])
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0, labelsize=8, labelcolor=GREY, labelfontfamily=FONT)
    axes.locator_params(axis="y", nbins=6)
    # No score is above 1, so no line is drawn there.
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 1.0001 and _inside(axes, tick)])
    axes.yaxis.set_major_formatter(lambda tick, _: _tick(frame.result, tick))


def _limits(result: DemoResult, tall: float) -> tuple[float, float]:
    """Limits that leave ``NEAR`` points for a score, and ``FAR`` for a reason, beyond the outermost marks."""
    low, high = _extent(result)
    crosses = [turn for turn in result.rounds if turn.verdict is Verdict.REFUSED]
    near = 0.3 * (high - low)
    below = any(not _hangs_above(turn) and (turn.candidate_accuracy or 0.0) < low + near for turn in crosses)
    above = any(_hangs_above(turn) and (turn.candidate_accuracy or 0.0) > high - near for turn in crosses)
    under, over = (FAR if below else NEAR), (FAR if above else NEAR)
    point = (high - low) / (tall - under - over)
    return low - under * point, high + over * point


def _hangs_above(turn: Round) -> bool:
    """Whether a refused candidate scored more than the champion, so that its words go above it."""
    return (turn.candidate_accuracy or 0.0) > (turn.champion_accuracy or 0.0)


def _inside(axes: Axes, tick: float) -> bool:
    bottom, top = axes.get_ylim()
    return bottom <= tick <= top


def _tick(result: DemoResult, tick: float) -> str:
    return f"{100 * tick:g} %" if result.metric == "accuracy" else f"{tick:.4g}"


def _between_rounds(frame: Frame) -> None:
    """Join a round's champion to the next round's: level where the test split stayed as it was."""
    for place, (turn, following) in enumerate(zip(frame.result.rounds, frame.result.rounds[1:], strict=False)):
        left, right = turn.standing, following.champion_accuracy
        if left is not None and right is not None:
            x = (place + ASIDE, place + 1 - ASIDE)
            frame.axes.plot(x, (left, right), color=BLUE, linewidth=1.3, linestyle=DOTS, zorder=2)


def _column(frame: Frame, place: int, turn: Round) -> None:
    """What the round was, below the axis; a pale red ground where its labels were wrong."""
    if turn.wrong_labels:
        frame.axes.axvspan(place - 0.48, place + 0.48, color=TINT, linewidth=0, zorder=0, gid="wrong labels")
    bottom = frame.axes.get_ylim()[0]
    style = {"va": "top", "annotation_clip": False}
    if frame.crowded:
        every = -(-len(frame.result.rounds) // 24)
        if place % every == 0:
            frame.text(place, bottom, str(turn.round), dy=-5, weight="bold", **style)
        return
    named = {"weight": "bold", "fontsize": 8.5, **style, "va": "baseline"}
    frame.text(place, bottom, turn.name, dy=-12, **named)
    lines = wrap(turn.title, 8, min(frame.column, 150), most=2)
    frame.text(place, bottom, "\n".join(lines), dy=-17, color=RED if turn.wrong_labels else GREY, **style)
    if turn.seen:
        sent, dy = f"{turn.seen} seen, {turn.sent} sent", -19 - 11 * len(lines)
        frame.text(place, bottom, sent, dy=dy, color=GREY, fontsize=7.4, **style)


def _draw_round(frame: Frame, place: int, turn: Round) -> None:
    before, after = turn.champion_accuracy, turn.standing
    if before is not None:
        _step(frame, place, turn, before)
        _champion(frame, place - ASIDE, before, hollow=True)
    if turn.verdict is Verdict.REFUSED:
        _refused(frame, place, turn)
    elif turn.verdict is Verdict.NOTHING and before is not None and not frame.crowded:
        frame.text(place, before, "nothing\ntrained", dy=-16, color=GREY, ground=_ground(turn))
    elif turn.candidate_accuracy is not None:
        _candidate(frame, place, turn.candidate_accuracy)
    if after is not None:
        if before is None and turn.promoted:
            frame.axes.plot((place, place + ASIDE), (after, after), color=BLUE, linewidth=2.6, zorder=3)
        _champion(frame, place + ASIDE, after, hollow=False)
        _scores(frame, place, turn, after)


def _step(frame: Frame, place: int, turn: Round, before: float) -> None:
    """The champion's way through the round: a step where the candidate took over, else a level line."""
    after = before if turn.standing is None else turn.standing
    x = (place - ASIDE, place, place, place + ASIDE)
    frame.axes.plot(x, (before, before, after, after), color=BLUE, linewidth=2.6, zorder=3, gid="step")


def _champion(frame: Frame, x: float, y: float, *, hollow: bool) -> None:
    frame.axes.plot(
        x,
        y,
        marker="o",
        markersize=8.5,
        markeredgewidth=2,
        color=BLUE,
        markerfacecolor="white" if hollow else BLUE,
        zorder=5,
        gid="before" if hollow else "after",
    )


def _candidate(frame: Frame, x: float, y: float) -> None:
    """A promoted candidate: the corner of the step."""
    style: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": BLUE, "markeredgewidth": 1.6}
    frame.axes.plot(x, y, marker="D", markersize=5.5, zorder=5, gid="candidate", **style)


def _refused(frame: Frame, place: int, turn: Round) -> None:
    """A cross where the candidate stood, tied to the champion that it did not replace."""
    score = turn.candidate_accuracy
    assert score is not None
    said, score = say_score(frame.result.metric, score), max(score, _floor(frame.result))
    if score != turn.candidate_accuracy:
        said = f"↓ {said}, off scale"
    champion = score if turn.champion_accuracy is None else turn.champion_accuracy
    frame.axes.plot((place, place), (champion, score), color=RED, linewidth=1.3, linestyle=(0, (2, 1.5)), zorder=2)
    cross: dict[str, Any] = {"markersize": 12, "markeredgewidth": 3.6, "color": RED, "zorder": 5}
    frame.axes.plot(place, score, marker="x", gid="refused", linestyle="none", **cross)
    if frame.crowded:
        return
    words = wrap(f"refused: {turn.reason}", 8, min(frame.column, 150), most=3)
    above = _hangs_above(turn)
    frame.text(
        place,
        score,
        "\n".join([said, *words]),
        dy=11 if above else -11,
        va="bottom" if above else "top",
        color=RED,
        ground=_ground(turn),
    )


def _scores(frame: Frame, place: int, turn: Round, after: float) -> None:
    """The champion's score after the round, and before it where the two differ as written."""
    if frame.crowded:
        return
    metric, before = frame.result.metric, turn.champion_accuracy
    fell = before is not None and after < before
    under = fell or (turn.verdict is Verdict.REFUSED and _hangs_above(turn))
    style = {"color": BLUE, "ground": _ground(turn)}
    bold = {"weight": "bold", "fontsize": 8.5} | style
    frame.text(place + ASIDE, after, say_score(metric, after), dy=-14 if under else 13, **bold)
    if before is not None and say_score(metric, before) != say_score(metric, after):
        frame.text(place - ASIDE, before, say_score(metric, before), dy=13 if fell else -14, **style)


def _ground(turn: Round) -> str:
    """Colour of the column that the round is drawn on."""
    return TINT if turn.wrong_labels else "white"


def _name_the_marks(figure: Figure, result: DemoResult) -> None:
    """Say once, under the picture, what each mark is, in the order in which a column is read."""
    from matplotlib.lines import Line2D

    disc: dict[str, Any] = {
        "marker": "o",
        "markersize": 7,
        "markeredgecolor": BLUE,
        "markerfacecolor": "white",
    }
    diamond = disc | {"marker": "D", "markersize": 5}
    cross = {"marker": "x", "markersize": 8, "markeredgecolor": RED, "markeredgewidth": 2.6}
    refused = any(turn.verdict is Verdict.REFUSED for turn in result.rounds)
    named = [
        (disc, "champion before"),
        (diamond, "candidate, promoted"),
        *([(cross, "candidate, refused")] if refused else []),
        (disc | {"markerfacecolor": BLUE}, "champion after"),
        (None, "until the next round"),
    ]
    x = LEFT
    for mark, words in named:
        dotted = {"color": BLUE, "linewidth": 1.3, "linestyle": DOTS}
        ends = [x - 0.012, x + 0.008] if mark is None else [x]
        style: dict[str, Any] = dotted if mark is None else {"linestyle": "none", "markeredgewidth": 1.7, **mark}
        figure.add_artist(Line2D(ends, [0.028] * len(ends), **style))
        figure.text(x + 0.014, 0.0265, words, fontsize=8, color=GREY, va="center", fontfamily=FONT)
        x += 0.05 + _points(words, 8) / WIDE


def wrap(words: str, size: float, wide: float, most: int, weight: str = "normal") -> list[str]:
    """``words`` as at most ``most`` lines of at most ``wide`` points, an ellipsis for what is left out."""
    lines: list[str] = []
    rest = _drawable(" ".join(words.split()))
    while rest and len(lines) < most:
        line, rest = _break(rest, size, wide, weight)
        lines.append(line)
    if rest:
        room = wide - _points(" …", size, weight)
        lines[-1] = _break(f"{lines[-1]} {rest}", size, room, weight)[0].rstrip(" ,;:.(") + "…"
    return lines


def _break(words: str, size: float, wide: float, weight: str) -> tuple[str, str]:
    """The longest beginning that fits, cut at a word where there is one, and what is left."""
    fits = bisect_right(range(1, min(len(words), 400) + 1), wide, key=lambda end: _points(words[:end], size, weight))
    if fits >= len(words):
        return words, ""
    cut = words.rfind(" ", 0, fits + 1)
    cut = cut if cut > 0 else max(fits, 1)
    return words[:cut].rstrip(), words[cut:].lstrip()


def _points(words: str, size: float, weight: str = "normal") -> float:
    """Width of ``words`` on a line, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(family=FONT, size=size, weight=weight)
    return float(TextToPath().get_text_width_height_descent(words, font, ismath=False)[0])


def _drawable(words: str) -> str:
    """``words`` with a replacement sign for every letter that the font does not have."""
    known = _letters_of_font()
    return "".join(letter if letter == "\n" or ord(letter) in known else "\ufffd" for letter in words)


@lru_cache(maxsize=1)
def _letters_of_font() -> frozenset[int]:
    """Code points that both weights in use can draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    files = [findfont(FontProperties(family=FONT, weight=weight)) for weight in ("normal", "bold")]
    return frozenset.intersection(*(frozenset(get_font(file).get_charmap()) for file in files)) - {*range(32)}
