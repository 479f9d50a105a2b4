"""What a stream's result must show, each as a line that says whether it does: no reader has to search the tables."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.bench.stream.protocol import AUDIT, LABELS, UPLOAD
from edgeloop.bench.stream.result import Interval, MethodResult, StreamBench

SEEDS = 5
RECOVERED = 0.80
RECOVERED_AIM = 0.95
BWT = -0.01
#: What rounding to whole samples may add to a share.
_ROUNDING = 0.005
#: From here a held candidate is a reason why the deployed model is no better.
_HELD_BACK = 0.01
NAMES = {"final": "final ACC", "near_future": "near future"}


@dataclass(frozen=True)
class Claim:
    """One requirement and what was measured."""

    what: str
    holds: bool | None
    """None where the stream cannot tell."""
    found: str

    @property
    def verdict(self) -> str:
        """``holds``, ``not reached`` or ``cannot be told``."""
        return "cannot be told" if self.holds is None else "holds" if self.holds else "not reached"

    @property
    def line(self) -> str:
        """For a list."""
        return f"{self.what}: {self.verdict}: {self.found}"


def claims(result: StreamBench) -> list[Claim]:
    """All requirements, of ``ours`` against the other methods; none without ``ours``."""
    by_name = {method.method: method for method in result.methods}
    ours = by_name.get("ours")
    if ours is None:
        return []
    found = [Claim(f"{SEEDS} seeds", result.seeds >= SEEDS, f"{result.seeds}")]
    if "sedna" in by_name:
        found += [_over("sedna", key, value, result) for key, value in ours.over_sedna.items()]
        found += [_over(_best(key, result), key, value, result) for key, value in ours.over_best_sedna.items()]
        found += [_no_more(what, ours, by_name["sedna"]) for what in ("labels", "bytes")]
    return [*found, *_recovered(ours, by_name), _forgets(ours), *_shares(ours)]


def reason(result: StreamBench) -> str | None:
    """What the run itself tells of why something was not reached; None where all holds."""
    if all(claim.holds is not False for claim in claims(result)):
        return None
    ours = next(method for method in result.methods if method.method == "ours")
    rounds, deployed = len(result.buckets) - 1, ours.figures["final"].value
    if ours.over_budget:
        return f"{ours.over_budget:.1f} of {rounds} candidates took longer to learn than {result.budget:g} CPU-seconds"
    last = f"the last candidate reached {ours.final_candidate:.3f}, {deployed:.3f} was deployed"
    if ours.final_candidate - deployed >= _HELD_BACK:
        return f"the gate held {ours.held:.1f} of {rounds} candidates: {last}"
    return f"not the gate's doing: {last}"


def _best(key: str, result: StreamBench) -> str:
    rivals = [m for m in result.methods if m.method.startswith("sedna")]
    best = max(rivals, key=lambda m: m.figures[key].value)
    return f"the best of Sedna's rows, {best.method}"


def _over(rival: str, key: str, value: Interval, result: StreamBench) -> Claim:
    what = f"ours over {rival}, {NAMES[key]}"
    if key == "near_future" and len(result.buckets) == 2:
        return Claim(what, None, "two buckets only")
    return Claim(what, value.low > 0, cell(value))


def _no_more(what: str, ours: MethodResult, theirs: MethodResult) -> Claim:
    mine, other = float(getattr(ours, what)), float(getattr(theirs, what))
    return Claim(f"ours at no more {what} than sedna", mine <= other, f"{mine:.0f} of {other:.0f}")


def _recovered(ours: MethodResult, by_name: dict[str, MethodResult]) -> list[Claim]:
    part = ours.figures.get("recovered")
    if part is None:
        span = by_name["joint"].figures["final"].value - by_name["frozen"].figures["final"].value
        return [Claim(f"recovered {RECOVERED:.2f}", None, f"nothing to recover: joint is {span:.3f} above frozen")]
    return [
        Claim(f"recovered {least:.2f}{aim}", part.value >= least, cell(part))
        for least, aim in ((RECOVERED, ""), (RECOVERED_AIM, " (aim)"))
    ]


def _forgets(ours: MethodResult) -> Claim:
    return Claim(f"BWT {BWT} or more", ours.figures["bwt"].value >= BWT, cell(ours.figures["bwt"]))


def _shares(ours: MethodResult) -> list[Claim]:
    audited = f"and the audit of {AUDIT:.0%}"
    return [
        Claim(f"{what} at most {share:.0%} {audited}", spent <= share + AUDIT + _ROUNDING, f"{spent:.1%}")
        for what, share, spent in (
            ("labelled", LABELS, ours.label_share),
            ("sent", UPLOAD, ours.upload_share),
        )
    ]


def cell(figure: Interval | None) -> str:
    """A figure and its 95 % interval."""
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" if figure else "-"
