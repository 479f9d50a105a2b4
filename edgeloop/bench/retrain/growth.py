"""How the cost of a round grows with the history, when what it replays stays the same."""

from __future__ import annotations

from collections.abc import Callable

from edgeloop.bench.retrain.pictures import Pictures
from edgeloop.bench.retrain.prepared import cache_features
from edgeloop.bench.retrain.result import Grown, Growth, exponent, medians
from edgeloop.bench.retrain.stages import STAGES, Retrain
from edgeloop.bench.retrain.world import collect
from edgeloop.bootstrap import App
from edgeloop.clients.models import Backbone
from edgeloop.samples.service import Service

#: Histories that are measured, in multiples of the first.
TIMES = (1, 2, 4, 8)


def measure_growth(
    app: App,
    service: Service,
    pictures: Pictures,
    backbone: Backbone,
    samples: int,
    runs: int,
    say: Callable[[str], None],
) -> Growth:
    """Rounds at histories of ``samples`` and more, with a tenth of ``samples`` replayed and as many new.

    The champion has seen all but the new ones, so that a round learns from the same number every time.
    """
    part = max(50, samples // 10)
    steady = service.model_copy(update={"trainer": service.trainer.model_copy(update={"replay": part})})
    points: list[Grown] = []
    there = 0
    for times in TIMES:
        size = samples * times
        cache_features(app.store, backbone, pictures, there, size, say)
        collect(app, pictures.take(there, size - part), there)
        Retrain(app, steady, 0).make_champion()
        collect(app, pictures.take(size - part, size), size - part)
        there = size
        Retrain(app, steady, 1000)
        points.append(_grown(size, [Retrain(app, steady, 1 + number) for number in range(runs)]))
        say(f"history of {size}: {points[-1].seconds['total']:.1f} s a round")
    sizes = [point.history for point in points]
    return Growth(
        replay=part,
        new=part,
        points=points,
        exponents={s: exponent(sizes, [p.cpu_seconds[s] for p in points]) for s in (*STAGES, "total")},
    )


def _grown(size: int, done: list[Retrain]) -> Grown:
    return Grown(
        history=size,
        seconds=medians([one.seconds for one in done]),
        cpu_seconds=medians([one.cpu for one in done]),
        store_reads=done[-1].reads,
        store_bytes=done[-1].read_bytes,
    )
