"""What a demo run found, as one record: the JSON, the picture, the page and the terminal tell it from here.

The sentences that a person reads are made here too, so that no two of those places tell different stories.
"""

from __future__ import annotations

import os
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgeloop.errors import EdgeloopError

Metric = Literal["accuracy", "r2"]
Score = Annotated[float, Field(le=1.0, allow_inf_nan=False)]
"""Accuracy (0..1) or R² (at most 1, any depth below 0)."""
#: Written where there is no value.
NONE = "\N{EN DASH}"
Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class NotWritten(EdgeloopError):
    """A picture or page of the demo could not be put where it was wanted."""


class Verdict(StrEnum):
    """How a round ended."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    NOTHING = "nothing trained"


class _Part(BaseModel):
    """Every key is named here; a misspelt one is refused rather than printed."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Round(_Part):
    """One turn of the loop; round 0 is the bootstrap."""

    round: Count
    title: str = ""
    """What drifts in this round."""
    seen: Count
    """Inputs that the fleet predicted on."""
    sent: Count
    """Samples that the nodes chose and sent."""
    labelled: Count
    wrong_labels: bool = False
    """The round's labels were made wrong on purpose."""
    quarantined: Count
    candidate_accuracy: Score | None
    """On the locked test split; None where the round trained nothing."""
    champion_accuracy: Score | None
    """Of the champion before this round's decision, on the locked test split; None before the first."""
    promoted: bool
    reason: str
    version: str | None
    """MLflow version that is champion after the round; None where there is none."""
    seconds: dict[str, Seconds] = Field(default_factory=dict)
    """Time per stage, in the order in which the stages ran."""

    @property
    def verdict(self) -> Verdict:
        """How the round ended."""
        if self.promoted:
            return Verdict.PROMOTED
        return Verdict.NOTHING if self.candidate_accuracy is None else Verdict.REFUSED

    @property
    def standing(self) -> float | None:
        """Score of the champion after the round's decision."""
        if self.promoted and self.candidate_accuracy is not None:
            return self.candidate_accuracy
        return self.champion_accuracy

    @property
    def name(self) -> str:
        """``Bootstrap`` or ``Round 3``."""
        return "Bootstrap" if self.round == 0 else f"Round {self.round}"


class FleetNode(_Part):
    """One node at the end of the run."""

    node: str
    ring: int
    serving: str | None
    """Digest of the release it serves."""
    wanted: str | None
    """Digest of the release its ring should serve."""

    @property
    def settled(self) -> bool:
        """Whether the node serves what its ring should."""
        return self.serving is not None and self.serving == self.wanted


class Accuracy(_Part):
    """The champion's score after the bootstrap and after the last round."""

    first: Score
    last: Score


class Pages(_Part):
    """Addresses or paths of what there is to look at."""

    prefect: str | None = None
    mlflow: str | None = None
    report: str | None = None
    plot: str | None = None


class DemoResult(_Part):
    """What ``edgeloop demo --json`` prints."""

    service: str
    metric: Metric
    seconds: Seconds
    simulated: str | None
    """A sentence that says what is simulated; None where nothing is."""
    rounds: list[Round] = Field(min_length=1)
    fleet: list[FleetNode]
    accuracy: Accuracy
    pages: Pages = Field(default_factory=Pages)


def say_metric(metric: Metric) -> str:
    """The metric's name in running text."""
    return "R²" if metric == "r2" else "accuracy"


def say_score(metric: Metric, score: float | None) -> str:
    """A score as people write it: ``84.3 %``, ``0.412``, or a dash where there is none."""
    if score is None:
        return NONE
    if metric == "accuracy":
        return f"{100 * score:.1f} %"
    return f"{score:.3f}" if score > -1000 else f"{score:.2e}"


def say_seconds(seconds: float) -> str:
    """A duration as people say it: ``0.4 s``, ``42 s``, ``3 min 12 s``, ``2 h 5 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def say_verdict(turn: Round) -> str:
    """A round's outcome in plain words, without its reason."""
    if turn.promoted:
        return f"Promoted: version {turn.version}" if turn.version else "Promoted"
    return turn.verdict.value.capitalize()


def headline(result: DemoResult) -> str:
    """The whole run in one sentence, with good and bad news in the same voice."""
    return f"{_movement(result)}{_wrong_labels(result)}."


def _movement(result: DemoResult) -> str:
    metric, first, last = result.metric, result.accuracy.first, result.accuracy.last
    before, after = say_score(metric, first), say_score(metric, last)
    subject = f"{result.service}: {say_metric(metric)}"
    turns = sum(turn.round > 0 for turn in result.rounds)
    over = f" over {turns} round{'s' if turns != 1 else ''}" if turns else ""
    if before == after:
        return f"{subject} stayed at {after}{over}"
    return f"{subject} {'rose' if last > first else 'fell'} from {before} to {after}{over}"


def _wrong_labels(result: DemoResult) -> str:
    """How the rounds with wrong labels ended; a promotion of one is said as plainly as a refusal."""
    said = []
    for verdict, outcome in (
        (Verdict.REFUSED, "refused"),
        (Verdict.PROMOTED, "promoted by mistake"),
        (Verdict.NOTHING, "never trained on"),
    ):
        numbers = [str(turn.round) for turn in result.rounds if turn.wrong_labels and turn.verdict is verdict]
        if numbers:
            rounds = "round" if len(numbers) == 1 else "rounds"
            said.append(f"the wrong labels of {rounds} {' and '.join(numbers)} were {outcome}")
    return "".join(f"; {part}" for part in said)


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path`` and rename it there, so that nobody opens half a file.

    Raises NotWritten where the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except OSError as error:
        os.unlink(beside)
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> NotWritten:
    why = error.strerror or type(error).__name__
    return NotWritten(f"cannot write {path}: {why}; choose another folder for the demo's pages")
