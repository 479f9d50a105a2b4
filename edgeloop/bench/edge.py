"""What a node costs and how fast it answers, beside the bare interpreter, KServe's server and a bare subscriber.

Every ratio is of two sides measured one after the other in the same run; what is printed is the median over the runs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgeloop.bench.edge_mqtt import MqttBench, bench_mqtt
from edgeloop.bench.edge_release import Releases, make_releases, picture
from edgeloop.bench.edge_site import (
    HOST,
    SERVICE,
    NodeUnderTest,
    free_port,
    listens,
    measure,
    mosquitto,
    process,
    python,
    resident_mb,
    until,
)
from edgeloop.bench.edge_swap import SwapBench, bench_swaps
from edgeloop.bench.requests import v1_base64, v2_base64, v2_binary

_IMPORT = """
import edgeloop.edge.node, os
print(int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20)
"""
CLIENTS = 8


@dataclass(frozen=True)
class EdgeOptions:
    """What to measure, and for how long."""

    backbone: Path | None = None
    """LiteRT extractor; None exports an Xception of 96 pixels with random weights."""
    kserve: Path | None = None
    """An interpreter that has ``kserve`` and ``ai-edge-litert``; None leaves KServe out."""
    runs: int = 3
    seconds: float = 5.0
    messages: int = 3000
    swaps: int = 20


class Sides(BaseModel):
    """One measurement on two sides, medians over the runs; ``ratio`` is the median of the runs' own ratios."""

    edgeloop: float
    other: float
    ratio: float


class EdgeBench(BaseModel):
    """What ``edgeloop bench edge`` measured."""

    runs: int
    image_bytes: int
    import_seconds: float
    """A fresh interpreter and its ``import edgeloop.edge.node``, from the start of the process to its end."""
    import_mb: float
    resident_mb: float
    """Of a node with one image model, after it has answered for a while."""
    p50_ms: Sides
    """V2 binary at concurrency 1, beside the bare interpreter on the same JPEG."""
    throughput: Sides
    """Requests/s of 8 clients over V2 binary, beside two bare interpreters."""
    kserve_v1: Sides | None
    """Requests/s of 8 clients, pictures as base64 over V1, beside KServe's Python server."""
    kserve_v2: Sides | None
    """The same over V2 as JSON."""
    kserve_mb: Sides | None
    mqtt: MqttBench
    swap: SwapBench


def bench_edge(folder: Path, options: EdgeOptions, say: Callable[[str], None]) -> EdgeBench:
    """Measure in ``folder``, which is overwritten.

    Raises:
        NoMosquitto: there is no mosquitto.
        BenchFailed: a process that is measured failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    jpeg = picture(folder / "picture.jpg")
    with two_cores(), mosquitto(folder) as broker_port:
        say("exporting the model")
        releases = make_releases(folder, options.backbone, broker_port)
        node = NodeUnderTest(folder / "node", releases.store_folder, releases.trust, broker_port, [SERVICE])
        releases.point(0)
        with node.run() as running:
            until(node.serving, "the first release on the node")
            site = _Site(folder, node, releases, options, say)
            rounds = [site.measure_once(jpeg, running.pid) for _ in range(options.runs)]
            swap = bench_swaps(site.load_command, node, releases, options.swaps, say)
        mqtt = bench_mqtt(folder, releases, broker_port, options.runs, options.messages, jpeg, say)
        imports = [_import() for _ in range(options.runs)]
    return _summary(options, jpeg, rounds, imports, mqtt, swap)


@contextmanager
def two_cores() -> Iterator[None]:
    """Run this process and those it starts on two cores, where the system can say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _import() -> dict[str, float]:
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True)
    return {"seconds": time.perf_counter() - begun, "mb": float(done.stdout)}


@dataclass
class _Site:
    folder: Path
    node: NodeUnderTest
    releases: Releases
    options: EdgeOptions
    say: Callable[[str], None]

    def load_command(self, port: int, request: bytes, clients: int, seconds: float) -> list[str]:
        file = self.folder / "request.bin"
        file.write_bytes(request)
        return python("load", HOST, str(port), str(file), str(clients), str(seconds))

    def measure_once(self, jpeg: bytes, pid: int) -> dict[str, float]:
        """One run of everything that has two sides."""
        seconds = self.options.seconds
        request = v2_binary(SERVICE, jpeg)
        bare = ("litert", str(self.releases.backbone), str(self.folder / "picture.jpg"))
        found = {
            "bare_p50": _p50(measure(python(*bare, "1", str(seconds)))),
            "node_p50": _p50(measure(self.load_command(self.node.port, request, 1, seconds))),
            "bare_rps": _rate(measure(python(*bare, "2", str(seconds)))),
            "node_rps": _rate(measure(self.load_command(self.node.port, request, CLIENTS, seconds))),
            "node_mb": resident_mb(pid),
        }
        if self.options.kserve:
            found |= self._kserve(self.options.kserve, jpeg)
            for name, asked in (("v1", v1_base64(SERVICE, jpeg)), ("v2", v2_base64(SERVICE, jpeg))):
                command = self.load_command(self.node.port, asked, CLIENTS, seconds)
                found[f"node_{name}_rps"] = _rate(measure(command))
        self.say(", ".join(f"{name} {value:.1f}" for name, value in found.items()))
        return found

    def _kserve(self, program: Path, jpeg: bytes) -> dict[str, float]:
        with _kserve(program, self.folder, self.releases) as (port, pid):
            seconds = self.options.seconds
            v1 = measure(self.load_command(port, v1_base64(SERVICE, jpeg), CLIENTS, seconds))
            v2 = measure(self.load_command(port, v2_base64(SERVICE, jpeg), CLIENTS, seconds))
            return {"kserve_v1_rps": _rate(v1), "kserve_v2_rps": _rate(v2), "kserve_mb": resident_mb(pid)}


@contextmanager
def _kserve(program: Path, folder: Path, releases: Releases) -> Iterator[tuple[int, int]]:
    port = free_port()
    script = Path(__file__).parent / "peers" / "kserve_server.py"
    command = [str(program), str(script), SERVICE, str(releases.backbone), str(releases.head), str(port)]
    with process(command, folder / "kserve.log") as running:
        until(lambda: listens(port) or running.poll() is not None, "KServe")
        yield port, running.pid


def _p50(result: dict[str, Any]) -> float:
    """Median in ms; the first tenth warms up."""
    took = _answered(result)
    return statistics.median(took[len(took) // 10 :]) * 1000


def _rate(result: dict[str, Any]) -> float:
    return len(_answered(result)) / float(result["seconds"])


def _answered(result: dict[str, Any]) -> list[float]:
    from edgeloop.bench.edge_site import BenchFailed

    if result.get("failed") or not result["took"]:
        raise BenchFailed(f"requests failed: {str(result.get('failed', []))[:200]}: read the logs in the bench folder")
    return list(result["took"])


def _sides(rounds: Sequence[dict[str, float]], mine: str, other: str) -> Sides:
    return Sides(
        edgeloop=statistics.median(r[mine] for r in rounds),
        other=statistics.median(r[other] for r in rounds),
        ratio=statistics.median(r[mine] / r[other] for r in rounds),
    )


def _summary(
    options: EdgeOptions,
    jpeg: bytes,
    rounds: list[dict[str, float]],
    imports: list[dict[str, Any]],
    mqtt: MqttBench,
    swap: SwapBench,
) -> EdgeBench:
    with_kserve = options.kserve is not None
    return EdgeBench(
        runs=options.runs,
        image_bytes=len(jpeg),
        import_seconds=statistics.median(i["seconds"] for i in imports),
        import_mb=statistics.median(i["mb"] for i in imports),
        resident_mb=statistics.median(r["node_mb"] for r in rounds),
        p50_ms=_sides(rounds, "node_p50", "bare_p50"),
        throughput=_sides(rounds, "node_rps", "bare_rps"),
        kserve_v2=_sides(rounds, "node_v2_rps", "kserve_v2_rps") if with_kserve else None,
        kserve_v1=_sides(rounds, "node_v1_rps", "kserve_v1_rps") if with_kserve else None,
        kserve_mb=_sides(rounds, "node_mb", "kserve_mb") if with_kserve else None,
        mqtt=mqtt,
        swap=swap,
    )


def edge_text(result: EdgeBench) -> str:
    """The measurement for a terminal, with what is aimed at."""
    rows = [
        f"import: {result.import_seconds:.2f} s, {result.import_mb:.0f} MB (aim: under 0.5 s and 80 MB)",
        f"resident with one image model: {result.resident_mb:.0f} MB (aim: under 150)",
        _row("p50, V2 binary, 1 client, ms", result.p50_ms, "bare interpreter", "at most 1.25"),
        _row("requests/s, 8 clients", result.throughput, "two bare interpreters", "at least 0.7"),
        _row("requests/s, 8 clients, V1 base64", result.kserve_v1, "KServe", "at least 1.8"),
        _row("requests/s, 8 clients, V2 JSON", result.kserve_v2, "KServe", "at least 1.8"),
        _row("resident MB", result.kserve_mb, "KServe", "at most 0.5"),
        f"MQTT, messages/s of {result.image_bytes} bytes, all captured: {result.mqtt.node:.0f}"
        f" | bare subscriber {result.mqtt.bare:.0f} | ratio {result.mqtt.ratio:.2f} (aim: at least 0.25)",
        f"hot swap: {result.swap.swaps} swaps, {result.swap.failed} of {result.swap.answers} requests failed;"
        f" p99 {result.swap.p99_ms_during:.1f} ms during, {result.swap.p99_ms_else:.1f} ms else"
        f" | ratio {result.swap.ratio:.2f} (aim: at most 3, none failed)",
    ]
    return "\n".join(row for row in rows if row)


def _row(what: str, sides: Sides | None, other: str, aim: str) -> str:
    if sides is None:
        return ""
    return f"{what}: {sides.edgeloop:.1f} | {other} {sides.other:.1f} | ratio {sides.ratio:.2f} (aim: {aim})"
