"""A report for people: in the terminal, and in rows for a page."""

from __future__ import annotations

from edgeloop.twin.records import Load, TwinReport

Row = tuple[str, str, str]


def rows(report: TwinReport) -> list[Row]:
    """What was looked at, what was found, and what was asked for."""
    profile, rules = report.profile, report.rules
    compared = f"{report.same} of {report.compared} {report.source} inputs" if report.compared else "-"
    agreed = f"{report.agreement:.1%} ({compared})" if report.agreement is not None else "-"
    late = _number(report.target_p99_ms, "ms")
    return [
        ("self-check", {True: "passes", False: "fails", None: "-"}[report.self_check], "passes"),
        ("errors", f"{report.errors} of {report.inputs}" if report.inputs else "-", f"at most {rules.max_errors:.1%}"),
        ("agreement", agreed, f"at least {rules.min_agreement:.1%}"),
        ("p50 / p99 here", f"{_number(report.p50_ms)} / {_number(report.p99_ms, 'ms')}", ""),
        (f"p99 on {profile.name}", late, f"at most {profile.latency_ms_p99:g} ms"),
        ("memory", _number(report.peak_mb, "MB"), f"at most {profile.memory_mb} MB"),
        ("load", load_text(report.load), ""),
    ]


def text(report: TwinReport) -> str:
    """Lines for the terminal."""
    head = f"{report.service} version {report.model} on {report.profile.name}: {report.outcome.upper()}"
    found = rows(report)
    widths = [max(len(row[n]) for row in found) for n in (0, 1)]
    body = ["  " + "  ".join((a.ljust(widths[0]), b.ljust(widths[1]), c)).rstrip() for a, b, c in found]
    why = [f"  - {reason}" for reason in report.reasons]
    notes = [f"  note: {note}" for note in report.notes]
    return "\n".join([head, *why, *body, *notes, f"  {report.seconds:.0f} s on {report.machine}"])


def load_text(load: Load | None) -> str:
    """One line about the load test; requests/s are those of the profile's hardware."""
    if load is None:
        return "not tried"
    if load.breaks_at is None:
        held = f"holds {load.holds_at:.1f} requests/s" if load.holds_at else "too slow for any step"
        return f"{held}, then the time was over"
    held = f"holds {load.holds_at:.1f}, " if load.holds_at else ""
    limit = "" if load.limit == "node" else " (the sender's limit, the node may take more)"
    return f"{held}breaks at {load.breaks_at:.1f} requests/s{limit}"


def _number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.1f} {unit}".rstrip()
