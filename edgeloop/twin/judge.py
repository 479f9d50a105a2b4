"""Whether what was measured is good enough. Pure: figures and budgets in, a word and its reasons out."""

from __future__ import annotations

from edgeloop.twin.records import Outcome, TwinReport

#: With fewer captured inputs than this, or than the rules ask for, agreement says too little.
FEW = 30


def judge(found: TwinReport, broken: str | None = None) -> tuple[Outcome, list[str]]:
    """The outcome, and why it is not ``pass``.

    Args:
        found: with everything measured; its ``outcome`` is not looked at.
        broken: what kept the node from being asked to the end, when something did.
    """
    failures = [broken] if broken else [*_answers(found), *_budgets(found)]
    if failures:
        return "fail", failures
    doubts = _doubts(found)
    return ("inconclusive", doubts) if doubts else ("pass", [])


def _answers(found: TwinReport) -> list[str]:
    said = []
    if found.self_check is False:
        said.append("the node does not answer the release's own probe as the release says")
    if found.inputs and found.errors / found.inputs > found.rules.max_errors:
        said.append(
            f"{found.errors} of {found.inputs} inputs got no answer, max_errors is {found.rules.max_errors:g}"
            f" ({found.first_error})"
        )
    if found.source == "captured" and found.agreement is not None and found.agreement < found.rules.min_agreement:
        said.append(
            f"{found.same} of {found.compared} answers ({found.agreement:.1%}) are those of the trained model,"
            f" min_agreement is {found.rules.min_agreement:.1%}"
        )
    return said


def _budgets(found: TwinReport) -> list[str]:
    profile, said = found.profile, []
    if found.target_p99_ms is not None and found.target_p99_ms > profile.latency_ms_p99:
        slower = f" ({found.p99_ms:.1f} ms here, slowdown {profile.slowdown:g})" if profile.slowdown != 1 else ""
        said.append(
            f"99 % of the answers take up to {found.target_p99_ms:.1f} ms{slower}, the budget of {profile.name} is"
            f" {profile.latency_ms_p99:g} ms"
        )
    if found.peak_mb is not None and found.peak_mb > profile.memory_mb:
        said.append(over_memory(found))
    return said


def over_memory(found: TwinReport) -> str:
    """The sentence for a node that took too much."""
    took = f" ({found.peak_mb:.1f} MB)" if found.peak_mb is not None else ""
    return f"the node took more memory{took} than the {found.profile.memory_mb} MB of {found.profile.name}"


def _doubts(found: TwinReport) -> list[str]:
    if found.source == "drawn":
        return ["there are no captured inputs yet: what it answers was seen on made-up ones only"]
    enough = min(found.rules.inputs, FEW)
    if found.compared < enough:
        return [f"only {found.compared} captured inputs were compared, {enough} are needed"]
    if found.peak_mb is None:
        return ["this system does not tell how much memory a process took"]
    return []
