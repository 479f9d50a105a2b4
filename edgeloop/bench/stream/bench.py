"""All methods on all seeds of one stream."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeloop.bench.stream.data import Stream, check_stream, contradictions
from edgeloop.bench.stream.folder import open_stream
from edgeloop.bench.stream.learner import make_learner
from edgeloop.bench.stream.methods import find_methods
from edgeloop.bench.stream.photos import Photographs
from edgeloop.bench.stream.policy import Method
from edgeloop.bench.stream.protocol import BUDGET, Run, run_method
from edgeloop.bench.stream.result import StreamBench, same_as_last, summarise
from edgeloop.bench.stream.split import SplitStream, split_stream

Say = Callable[[str], None]


@dataclass(frozen=True)
class StreamOptions:
    """What to run."""

    seeds: int = 5
    methods: tuple[str, ...] = ()
    """Names; all if empty. ``frozen`` and ``joint`` are always run."""
    limit: int = 5000
    """Rows of a bucket, at most."""
    delay: int = 0
    """Rounds by which what was sent comes late."""
    data: Path | None = None
    backbone: Path | None = None
    budget: float = BUDGET
    """CPU-seconds that learning may take in a round."""


def bench_stream(what: str, home: Path, options: StreamOptions, say: Say) -> StreamBench:
    """Run the stream ``what``, a folder with ``stream.yaml`` or a known name.

    Raises:
        BadInput: a subclass of it for whatever is wrong with the stream, a method's name or the data folder.
    """
    kinds = find_methods(list(options.methods))
    stream = open_stream(what, options.data, Photographs(home, options.backbone, say))
    return bench_data(stream, kinds, options, say)


def bench_data(stream: Stream, kinds: list[type[Method]], options: StreamOptions, say: Say) -> StreamBench:
    """Run methods on a stream that was read."""
    began = time.monotonic()
    check_stream(stream)
    splits = [split_stream(stream, seed, options.limit) for seed in range(options.seeds)]
    runs = [run_seed(split, kinds, seed, options, say) for seed, split in enumerate(splits)]
    return StreamBench(
        stream=stream.name,
        labels=list(stream.labels),
        buckets=[bucket.name for bucket in stream.buckets],
        seeds=options.seeds,
        limit=options.limit,
        delay=options.delay,
        budget=options.budget,
        contradictory=[contradictions(bucket) for bucket in stream.buckets],
        rows=[
            {"pool": len(b.pool.truth), "gate": len(b.gate.truth), "test": len(b.test.truth)} for b in splits[0].buckets
        ],
        same_as_last=same_as_last(splits) if stream.ordered else None,
        seconds=time.monotonic() - began,
        methods=summarise(kinds, splits, runs),
    )


def run_seed(split: SplitStream, kinds: list[type[Method]], seed: int, options: StreamOptions, say: Say) -> list[Run]:
    """All methods on one seed, with the learner that they share."""
    start = split.buckets[0].pool
    learner = make_learner(start.features, start.truth, len(split.labels), seed)
    found = []
    for kind in kinds:
        found.append(run_method(kind, split, learner, seed, options.delay, budget=options.budget))
        final = sum(float(hits.mean()) for hits in found[-1].deployed[-1]) / len(split.buckets)
        say(f"seed {seed}: {kind.name} {final:.3f}, {found[-1].cpu_seconds:.1f} CPU-seconds")
    return found
