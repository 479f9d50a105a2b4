"""The measurement: the head's retrain at full size, a fine-tune of the backbone beside it, and growth."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.bench.retrain.full import measure_full
from edgeloop.bench.retrain.growth import measure_growth
from edgeloop.bench.retrain.pictures import Pictures
from edgeloop.bench.retrain.prepared import cache_features
from edgeloop.bench.retrain.result import RetrainBench, medians
from edgeloop.bench.retrain.stages import Retrain
from edgeloop.bench.retrain.world import NAME, bench_app, bench_service, collect
from edgeloop.bootstrap import App
from edgeloop.clients.models import Backbone, read_backbone
from edgeloop.samples.dataset import load_dataset
from edgeloop.samples.service import Service
from edgeloop.samples.splits import SHARES
from edgeloop.settings import Settings


@dataclass(frozen=True)
class RetrainOptions:
    """What to measure."""

    data: Path
    """Folder of ``digits28.npz``."""
    backbone: Path
    """LiteRT extractor."""
    samples: int = 10_000
    """That a head is fitted on, half of them replayed."""
    runs: int = 3
    full: int = 500
    """Images that the full fine-tune is measured on; 0 leaves it out."""
    epochs: int = 1
    growth: bool = False
    """Also rounds at one, two, four and eight times the history."""


def bench_retrain(settings: Settings, home: Path, options: RetrainOptions, say: Callable[[str], None]) -> RetrainBench:
    """Measure in ``home``, which is emptied but for its features.

    Raises:
        NoPictures: the data is not there.
        UnknownBackbone: the file is no LiteRT extractor.
        PartFailed: the MLflow server does not start.
    """
    pictures = Pictures(options.data)
    backbone = read_backbone(options.backbone)
    service = bench_service(options.backbone, backbone.size, options.samples // 2)
    with bench_app(settings, home, say) as app:
        result = _at_full_size(app, service, pictures, backbone, options, say)
    if options.full:
        shown = pictures.take(0, options.samples)
        head = (result.samples, result.accuracy, result.seconds["total"])
        result = result.model_copy(update={"full": measure_full(shown, options.full, options.epochs, head, say)})
    if options.growth:
        with bench_app(settings, home, say) as app:
            grown = measure_growth(app, service, pictures, backbone, options.samples, options.runs, say)
        result = result.model_copy(update={"growth": grown})
    return result


def _at_full_size(
    app: App,
    service: Service,
    pictures: Pictures,
    backbone: Backbone,
    options: RetrainOptions,
    say: Callable[[str], None],
) -> RetrainBench:
    """A champion of half the samples, then as many new ones, and the same retrain several times under other seeds."""
    total = options.samples * 100 // SHARES["pool"]
    began = time.monotonic()
    cache_features(app.store, backbone, pictures, 0, total, say)
    feature_seconds = time.monotonic() - began
    collect(app, pictures.take(0, total // 2), 0)
    Retrain(app, service, 0).make_champion()
    collect(app, pictures.take(total // 2, total), total // 2)
    done = _repeated(app, service, options.runs, say)
    made = done[-1].candidate
    return RetrainBench(
        backbone=backbone.digest,
        samples=sum(made.trained_on.values()),
        new=made.trained_on["new"],
        replay=made.trained_on["replay"],
        gate=load_dataset(app.store, NAME, made.dataset).counts["gate"],
        features=backbone.length,
        feature_seconds=feature_seconds,
        runs=[one.seconds for one in done],
        seconds=medians([one.seconds for one in done]),
        accuracy=float(done[-1].evaluation.decision.candidate or 0.0),
    )


def _repeated(app: App, service: Service, runs: int, say: Callable[[str], None]) -> Sequence[Retrain]:
    """The first retrain, which imports what it needs, does not count."""
    Retrain(app, service, 1000)
    done = []
    for seed in range(runs):
        done.append(Retrain(app, service, seed))
        say(f"retrain {seed + 1} of {runs}: {sum(done[-1].seconds.values()):.1f} s")
    return done
