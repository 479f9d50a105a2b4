"""The node's counters as Prometheus text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate

from edgeloop.edge.memory import resident_bytes
from edgeloop.edge.runtime import Runtime
from edgeloop.edge.spool.captures import Captures
from edgeloop.edge.stats import BUCKETS, IGNORED, ServiceStats, Stats


def exposition(stats: Stats, spool: Captures, runtime: Runtime) -> str:
    """All metrics in the text format 0.0.4."""
    lines = [
        *_head("edgeloop_requests_total", "counter", "Inputs by how they ended."),
        *_each(stats, _requests),
        *_head("edgeloop_request_seconds", "histogram", "Time to predict."),
        *_each(stats, _seconds),
        *_head("edgeloop_captured_total", "counter", "Captured samples by what selected them."),
        *_each(stats, _captured),
        *_head("edgeloop_passed_total", "counter", "Answered inputs that were not chosen, by the reason."),
        *_each(stats, _passed),
        *_head("edgeloop_audited", "gauge", "Audited answers, by whether a device's last word agreed."),
        *_each(stats, _audit),
        *_head("edgeloop_feedback_refused_total", "counter", "Feedback that was no use."),
        *_each(stats, _feedback),
        *_head(
            "edgeloop_messages_ignored_total",
            "counter",
            "MQTT messages that were no input of a service, by the reason.",
        ),
        *(f'edgeloop_messages_ignored_total{{reason="{why}"}} {stats.ignored[why]}' for why in IGNORED),
        *_spool(stats, spool),
        *_memory(),
        *_head("edgeloop_release_info", "gauge", "The release that serves."),
        *_releases(stats, runtime),
    ]
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _each(stats: Stats, lines: Callable[[str, ServiceStats], Iterator[str]]) -> Iterator[str]:
    with stats.lock:
        for service, one in stats.services.items():
            yield from lines(service, one)


def _requests(service: str, stats: ServiceStats) -> Iterator[str]:
    for outcome in ("ok", "bad_input", "model_error", "not_ready"):
        yield f'edgeloop_requests_total{{service="{service}",outcome="{outcome}"}} {stats.outcomes[outcome]}'


def _seconds(service: str, stats: ServiceStats) -> Iterator[str]:
    name = "edgeloop_request_seconds"
    counts = list(accumulate(stats.buckets))
    for bound, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
        yield f'{name}_bucket{{service="{service}",le="{bound}"}} {count}'
    yield f'{name}_sum{{service="{service}"}} {stats.seconds:.6f}'
    yield f'{name}_count{{service="{service}"}} {counts[-1]}'


def _captured(service: str, stats: ServiceStats) -> Iterator[str]:
    for selected_by in sorted({"audit", *stats.captured}):
        count = stats.captured[selected_by]
        yield f'edgeloop_captured_total{{service="{service}",selected_by="{selected_by}"}} {count}'


def _passed(service: str, stats: ServiceStats) -> Iterator[str]:
    for reason, count in sorted(stats.passed.items()):
        yield f'edgeloop_passed_total{{service="{service}",reason="{reason}"}} {count}'


def _audit(service: str, stats: ServiceStats) -> Iterator[str]:
    agreed = stats.audit["agreed"]
    for verdict, count in (("true", agreed), ("false", stats.audit["labelled"] - agreed)):
        yield f'edgeloop_audited{{service="{service}",agreed="{verdict}"}} {count}'


def _feedback(service: str, stats: ServiceStats) -> Iterator[str]:
    yield f'edgeloop_feedback_refused_total{{service="{service}"}} {stats.feedback_refused}'


def _spool(stats: Stats, spool: Captures) -> Iterator[str]:
    yield from _head("edgeloop_spool_bytes", "gauge", "Bytes that wait for the store.")
    yield f"edgeloop_spool_bytes {spool.size}"
    yield from _head("edgeloop_spool_samples", "gauge", "Records that wait for the store.")
    yield f"edgeloop_spool_samples {spool.samples}"
    yield from _head("edgeloop_spool_accepting", "gauge", "1 while captures are taken, 0 while the disk refuses them.")
    yield f"edgeloop_spool_accepting {int(spool.accepting)}"
    yield from _head("edgeloop_spool_refused_total", "counter", "Records not taken: spool full or disk failed.")
    yield f"edgeloop_spool_refused_total {spool.refused}"
    yield from _head("edgeloop_spool_corrupt_total", "counter", "Damaged stretches of the spool set aside.")
    yield f"edgeloop_spool_corrupt_total {spool.corrupt}"
    yield from _head("edgeloop_spool_dropped_total", "counter", "Captured samples dropped for more valuable ones.")
    for service in stats.services:
        yield f'edgeloop_spool_dropped_total{{service="{service}"}} {spool.dropped[service]}'


def _memory() -> Iterator[str]:
    resident = resident_bytes()
    if resident is not None:
        yield from _head("edgeloop_resident_bytes", "gauge", "Resident memory of the node.")
        yield f"edgeloop_resident_bytes {resident}"


def _releases(stats: Stats, runtime: Runtime) -> Iterator[str]:
    for service in stats.services:
        if loaded := runtime.loaded(service):
            yield f'edgeloop_release_info{{service="{service}",digest="{loaded.release}"}} 1'
