"""What a change of the model does to those who ask meanwhile: nothing may fail, and few may wait."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import BaseModel

from edgeloop.bench.edge_site import SERVICE, BenchFailed, NodeUnderTest, until
from edgeloop.bench.requests import v2_binary

if TYPE_CHECKING:
    from edgeloop.bench.edge_release import Releases

CLIENTS = 8
#: After the switch: the old model goes, the caches warm up.
AFTER_SECONDS = 0.5
#: Between two swaps, so that there is an "else" to compare with.
PAUSE_SECONDS = 1.0
#: A swap may take so long.
SWAP_SECONDS = 30.0
LoadCommand = Callable[[int, bytes, int, float], list[str]]


class SwapBench(BaseModel):
    """Latency of 8 clients while releases are swapped under them."""

    swaps: int
    answers: int
    failed: int
    p99_ms_during: float
    """Of requests begun between the order to swap and half a second after the switch."""
    p99_ms_else: float
    ratio: float


def bench_swaps(
    load_command: LoadCommand, node: NodeUnderTest, releases: Releases, swaps: int, say: Callable[[str], None]
) -> SwapBench:
    """Swap ``swaps`` times under load."""
    request = v2_binary(SERVICE, (releases.folder / "picture.jpg").read_bytes())
    windows: list[tuple[float, float]] = []
    longest = swaps * (PAUSE_SECONDS + SWAP_SECONDS) + 60
    with subprocess.Popen(load_command(node.port, request, CLIENTS, longest), stdout=subprocess.PIPE) as load:
        try:
            for number in range(1, swaps + 1):
                time.sleep(PAUSE_SECONDS)
                windows.append(_swap(node, releases, number))
            time.sleep(PAUSE_SECONDS)
        finally:
            load.terminate()
        output = load.communicate()[0]
    if load.returncode:
        raise BenchFailed(f"the load ended with {load.returncode}: read the logs in the bench folder")
    result = json.loads(output)
    times = list(zip(result["started"], result["took"], strict=True))
    last = windows[-1][1]
    inside = [took for at, took in times if any(a <= at <= b for a, b in windows)]
    outside = [took for at, took in times if at <= last and not any(a <= at <= b for a, b in windows)]
    say(f"{swaps} swaps: {len(inside)} answers during, {len(outside)} else, {len(result['failed'])} failed")
    during, other = _p99(inside), _p99(outside)
    return SwapBench(
        swaps=swaps,
        answers=len(times),
        failed=len(result["failed"]),
        p99_ms_during=during,
        p99_ms_else=other,
        ratio=during / other,
    )


def _swap(node: NodeUnderTest, releases: Releases, number: int) -> tuple[float, float]:
    begun = time.time()
    wanted = releases.point(number % 2)
    until(lambda: node.serving() == wanted, f"swap {number}", SWAP_SECONDS)
    return begun, time.time() + AFTER_SECONDS


def _p99(took: list[float]) -> float:
    if not took:
        raise BenchFailed("no answers to compare: measure for longer")
    return sorted(took)[min(len(took) - 1, int(0.99 * len(took)))] * 1000
