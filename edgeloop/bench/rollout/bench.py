"""What a rollout costs the control plane, beside one Prefect task per node, and what a faulty release reaches."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeloop.bench.edge_site import BenchFailed, process, until
from edgeloop.bench.rollout.clusters import count_cluster_calls
from edgeloop.bench.rollout.faulty import play_faulty, play_rare
from edgeloop.bench.rollout.prefect_way import run_per_node
from edgeloop.bench.rollout.result import ControlRun, PerNodeRun, RolloutBench
from edgeloop.bench.rollout.site import Site, made_site, ring_sizes

_RINGS = (3, 6)
_SMALLER = (100, 1000)
#: Rare faults are played a tenth as often: nothing is asked of them.
_RARE = 10
_SECONDS = 600.0


@dataclass(frozen=True)
class RolloutOptions:
    """What is measured."""

    nodes: int
    offline: float
    failing: float
    seed: int
    faulty: int
    """Rollouts of faulty releases."""
    tasks: int
    """Nodes of the rollout with one Prefect task for each; 0 leaves it out."""
    rooms: Path


def bench_rollout(home: Path, options: RolloutOptions, say: Callable[[str], None]) -> RolloutBench:
    """Measure in a new folder below ``home``, which is removed at the end.

    Raises:
        TooFewNodes, NoMosquitto, BenchFailed: nothing is printed then.
    """
    for nodes in (options.nodes, *([options.tasks] if options.tasks else [])):
        ring_sizes(nodes, max(_RINGS))
    load = os.getloadavg()[0]
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="run-", dir=home, ignore_cleanup_errors=True) as folder:
        return _Bench(Path(folder), options, say).run(load)


class _Bench:
    def __init__(self, folder: Path, options: RolloutOptions, say: Callable[[str], None]) -> None:
        self._folder, self._options, self._say = folder, options, say
        self._runs: dict[tuple[int, int], ControlRun] = {}

    def run(self, load: float) -> RolloutBench:
        options = self._options
        main = self._control(options.nodes, _RINGS[0])
        per_node = self._per_node() if options.tasks else None
        same = self._control(options.tasks, _RINGS[0]) if options.tasks else None
        sizes = [*(n for n in _SMALLER if n < options.nodes), options.nodes]
        runs = [self._control(nodes, rings) for nodes in sizes for rings in _RINGS]
        self._say("calls of a cluster")
        clusters = [count_cluster_calls(nodes, rings) for nodes in sizes for rings in _RINGS]
        self._say(f"{options.faulty} faulty releases")
        return RolloutBench(
            offline=options.offline,
            failing=options.failing,
            seed=options.seed,
            cpus=os.cpu_count() or 1,
            load=load,
            rollout=main,
            same_size=same,
            per_node=per_node,
            sizes=runs,
            clusters=clusters,
            faulty=play_faulty(options.faulty, options.seed) if options.faulty else [],
            rare=play_rare(options.faulty // _RARE, options.seed) if options.faulty >= _RARE else None,
        )

    def _control(self, nodes: int, rings: int) -> ControlRun:
        if (nodes, rings) not in self._runs:
            self._say(f"rollout to {nodes} nodes in {rings} rings")
            with self._site(f"{nodes}-{rings}", nodes, rings) as site:
                self._runs[nodes, rings] = run_control(site)
        return self._runs[nodes, rings]

    def _per_node(self) -> PerNodeRun:
        self._say(f"one Prefect task for each of {self._options.tasks} nodes")
        with self._site("per-node", self._options.tasks, _RINGS[0]) as site:
            return run_per_node(site, self._options.rooms)

    @contextmanager
    def _site(self, name: str, nodes: int, rings: int) -> Iterator[Site]:
        options = self._options
        folder, draw = self._folder / name, (options.offline, options.failing, options.seed)
        with made_site(folder, nodes, rings, *draw) as site, simulated_nodes(site):
            yield site


@contextmanager
def simulated_nodes(site: Site) -> Iterator[None]:
    """The site's nodes, in a process of their own, when all of them have reported."""
    command = [sys.executable, "-m", "edgeloop.bench.rollout.nodes", str(site.folder / "site.json")]
    with process(command, site.folder / "nodes.log"):
        until((site.folder / "obeyed.json").exists, "the simulated nodes")
        yield


def run_control(site: Site) -> ControlRun:
    """One rollout, its control plane in a process of its own.

    Raises:
        BenchFailed: it ended with an error.
    """
    command = [sys.executable, "-m", "edgeloop.bench.rollout.control", str(site.folder / "site.json")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise BenchFailed(f"a rollout to {site.nodes} nodes did not end in {_SECONDS:g} s") from error
    if done.returncode:
        raise BenchFailed(f"the control plane of {site.nodes} nodes failed: {done.stderr.strip()[-300:]}")
    return ControlRun.model_validate_json(done.stdout)
