"""Where a round's wall time goes: the same loop that the demo runs, each round taken apart by what it waited for.

A round's wall time runs from asking for the flow to its end. The tasks' own running times are Prefect's records;
what is left of the wall time is Prefect's: starting the process, importing, and keeping the books.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel

from edgeloop.bootstrap import App
from edgeloop.demo.live import Live
from edgeloop.demo.run import Demo, Options
from edgeloop.settings import Settings, make_home
from edgeloop.sources.streams import load_stream
from edgeloop.stack.plan import StackPlan
from edgeloop.stack.running import running_stack

#: What each task of the loop spends its time on.
PART_OF_TASK = {
    "ingest": "store",
    "validate": "validation",
    "plan": "store",
    "train": "compute",
    "evaluate": "compute",
    "register": "MLflow",
    "promote": "MLflow",
    "release": "release",
    "rollout": "rollout",
}
PARTS = ("compute", "Prefect", "MLflow", "store", "validation", "release", "rollout")


class RoundTime(BaseModel):
    """Wall time of one round in seconds, by part."""

    round: int
    trained: bool
    wall: float
    parts: dict[str, float]

    @property
    def overhead(self) -> float:
        """Everything but compute."""
        return self.wall - self.parts["compute"]


class LoopBench(BaseModel):
    """What ``edgeloop bench loop`` measured."""

    service: str
    database: str
    """What stands behind Prefect: ``sqlite`` or ``postgresql``."""
    rounds: list[RoundTime]
    idle: list[RoundTime]
    """Rounds with no new data."""
    median_seconds: dict[str, float]
    overhead_seconds: float
    """Median of everything but compute."""
    idle_work_seconds: float
    """Median of the tasks' own time in a round with no new data."""


@dataclass(frozen=True)
class _Timed:
    wall: float
    parts: dict[str, float]


def bench_loop(settings: Settings, name: str, rounds: int, say: Callable[[str], None]) -> LoopBench:
    """Bring a stack up on a new home beside the given one, play ``rounds`` rounds and as many with nothing new.

    Raises:
        UnusableData: the service's data set is not in the home; ``edgeloop data get`` brings it.
    """
    home = make_home(settings.home)
    bench_home = home / "bench"
    shutil.rmtree(bench_home, ignore_errors=True)
    service = App(settings).service(name)
    database = os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", "")
    plan = StackPlan(
        home=bench_home,
        rooms=settings.rooms,
        services=[name],
        nodes=2,
        free_ports=True,
        store_url=settings.store,
        root=App(settings.model_copy(update={"home": bench_home})).channel.ensure(),
        database=database,
    )
    with running_stack(plan, lambda event: say(f"{event.part} {event.state}")) as stack:
        app = App(stack.settings())
        app.orchestrator.set_schedules(False)
        stream = load_stream(service, home / "data" / str(service.data), rounds, 0)
        clock = _Clock(app, say)
        options = Options(rounds=rounds, wrong_round=0)
        Demo(app, service, stream, plan.nodes, options, Live(quiet=True), clock.watch).play()
        trained = [_row(i, True, t) for i, t in enumerate(clock.timed[1:], 1)]
        clock.timed.clear()
        for _ in range(rounds):
            clock.run(name)
        idle = [_row(i, False, t) for i, t in enumerate(clock.timed, 1)]
    return LoopBench(
        service=name,
        database=database.split("+")[0].split(":")[0] or "sqlite",
        rounds=trained,
        idle=idle,
        median_seconds={p: statistics.median(r.parts[p] for r in trained) for p in PARTS},
        overhead_seconds=statistics.median(r.overhead for r in trained),
        idle_work_seconds=statistics.median(r.wall - r.parts["Prefect"] for r in idle),
    )


class _Clock:
    """Times flow runs and takes them apart."""

    def __init__(self, app: App, say: Callable[[str], None]) -> None:
        self._app = app
        self._say = say
        self.timed: list[_Timed] = []

    def watch(self, run: str, wall: float) -> None:
        """Book a flow run that has ended."""
        parts = dict.fromkeys(PARTS, 0.0)
        for task in self._app.orchestrator.tasks(run):
            parts[PART_OF_TASK[task.name]] += task.seconds
        parts["Prefect"] = max(0.0, wall - sum(parts.values()))
        self.timed.append(_Timed(wall, parts))
        self._say(f"round of {wall:.1f} s: " + ", ".join(f"{p} {s:.1f}" for p, s in parts.items()))

    def run(self, service: str) -> None:
        """Run the loop once with nothing new, and book it."""
        started = time.monotonic()
        run = self._app.orchestrator.run("loop/loop", {"service": service, "reason": "bench, nothing new"})
        self._app.orchestrator.wait(run, timeout=300)
        self.watch(run, time.monotonic() - started)


def _row(number: int, trained: bool, timed: _Timed) -> RoundTime:
    return RoundTime(round=number, trained=trained, wall=timed.wall, parts=timed.parts)


def bench_text(result: LoopBench) -> str:
    """The measurement for a terminal."""
    rows = [f"{p:<12}{result.median_seconds[p]:6.2f}" for p in PARTS]
    return "\n".join(
        [
            f"{result.service}, {len(result.rounds)} rounds, Prefect on {result.database}; medians in seconds",
            *rows,
            f"everything but compute: {result.overhead_seconds:.2f}",
            f"work in a round with nothing new: {result.idle_work_seconds:.2f}",
        ]
    )
