"""The control plane of one measured rollout, in a process of its own: its time and its memory are nobody else's.

It ticks as the flow does, with the same functions. Between two ticks it waits until the simulated nodes have done as
they were told, as they have in the thirty seconds between two ticks of a schedule; what they wait for is not counted.

Run as ``python -m edgeloop.bench.rollout.control SITE_JSON``; prints JSON.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgeloop.bench.edge_site import until
from edgeloop.bench.rollout.counted import CountedBroker, count_sql, counted_store
from edgeloop.bench.rollout.nodes import ASKED
from edgeloop.bench.rollout.result import ControlRun, TickTime
from edgeloop.bench.rollout.site import SERVICE, Site, read_site
from edgeloop.bootstrap import INFLIGHT
from edgeloop.clients.broker import Broker, connect
from edgeloop.fleet.channel import Pointing, Rings
from edgeloop.fleet.rollout import RolloutStatus, describe_rollout, start, tick
from edgeloop.fleet.rollouts.intake import hear
from edgeloop.fleet.rollouts.roster import Roster
from edgeloop.samples.cohorts import EVERYONE
from edgeloop.samples.records import now
from edgeloop.samples.releases import Wanted
from edgeloop.samples.strategy import Thresholds
from edgeloop.samples.topics import FLUSH
from edgeloop.store import FleetStore

#: A tick more often than this, and the rollout does not move.
_MOST_TICKS = 60


class Remembering:
    """The channel; remembers which record each ring has."""

    def __init__(self, channel: Rings) -> None:
        self._channel = channel
        self.sequences: dict[int, int] = {}

    def point_many(self, service: str, rings: Mapping[int, Pointing]) -> dict[int, tuple[Wanted, bool]]:
        found = self._channel.point_many(service, rings)
        self.sequences |= {ring: record.sequence for ring, (record, _) in found.items()}
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


@dataclass
class Control:
    """What a tick is made of."""

    site: Site
    fleet: FleetStore
    channel: Remembering
    broker: CountedBroker
    calls: Counter[str]

    def roll_out(self) -> ControlRun:
        """From the promotion to the end, or until only a person moves it."""
        self.fleet.add_release(SERVICE, "1", self.site.old)
        self.fleet.add_release(SERVICE, "2", self.site.new)
        self.calls.clear()
        began = time.monotonic()
        begun = timed(self._start, self.broker)
        ticks = list[TickTime]()
        while len(ticks) < _MOST_TICKS and not self._has_ended():
            ticks.append(self._tick())
            until(self._is_obeyed, "the simulated nodes")
        wall = time.monotonic() - began
        status = describe_rollout(self.fleet, SERVICE)
        return ControlRun(
            nodes=self.site.nodes,
            rings=self.site.rings,
            state=status.state,
            reason=status.reason,
            switched=sum(ring.switched for ring in status.rings),
            failed=sum(ring.failed for ring in status.rings),
            start=begun,
            ticks=ticks,
            wall_seconds=wall,
            calls=dict(sorted(self.calls.items())),
            look=self._look(),
            peak_mb=peak_mb(),
        )

    def _start(self) -> None:
        start(self.fleet, self._rings, self.site.service, self.site.new, "measured", "bench")

    @property
    def _rings(self) -> Rings:
        return cast(Rings, self.channel)

    def _status(self) -> RolloutStatus:
        before = self.calls.copy()
        try:
            return describe_rollout(self.fleet, SERVICE)
        finally:  # to look is no work of a tick
            self.calls.clear()
            self.calls.update(before)

    def _has_ended(self) -> bool:
        status = self._status()
        return status.has_ended or status.waits == "person"

    def _tick(self) -> TickTime:
        return timed(
            lambda: tick(self.fleet, self._rings, cast(Broker, self.broker), lambda _: self.site.service), self.broker
        )

    def _look(self) -> TickTime:
        """What a tick of the schedule hears while a ring soaks: on a new connection, from nodes that all said more."""
        self.broker.publish(FLUSH, b"{}")
        until(lambda: self.site.obeyed().get(ASKED), "the simulated nodes")
        broker = CountedBroker(connect(self.site.broker, "bench-look", receive_maximum=INFLIGHT), Counter())
        try:
            return timed(lambda: self._hear(broker), broker)
        finally:
            broker.close()

    def _hear(self, broker: CountedBroker) -> None:
        roster, at = Roster(self.fleet.database), now()
        hear(roster, cast(Broker, broker), at)
        for ring in range(self.site.rings):
            site = self.site
            roster.evidence(SERVICE, ring, site.new, site.old, "", EVERYONE, Thresholds(), at)

    def _is_obeyed(self) -> bool:
        obeyed = self.site.obeyed()
        return all(obeyed.get(ring) == number for ring, number in self.channel.sequences.items())


def timed(call: Callable[[], object], broker: CountedBroker) -> TickTime:
    """How long ``call`` takes, and how many messages it heard."""
    wall, cpu, reads = time.perf_counter(), time.process_time(), len(broker.came)
    call()
    took = time.perf_counter() - wall, time.process_time() - cpu
    return TickTime(seconds=took[0], cpu=took[1], messages=sum(broker.came[reads:]))


def peak_mb() -> float:
    """Most memory that this process ever held, in MiB: ``VmHWM`` of Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run(site: Site) -> ControlRun:
    """Roll the new release out."""
    calls: Counter[str] = Counter()
    count_sql(calls)
    fleet = FleetStore(f"sqlite:///{site.folder / 'fleet.db'}")
    broker = CountedBroker(connect(site.broker, "bench-control", receive_maximum=INFLIGHT), calls)
    channel = Remembering(site.publisher(counted_store(site.store, calls)))
    try:
        return Control(site, fleet, channel, broker, calls).roll_out()
    finally:
        broker.close()
        fleet.close()


if __name__ == "__main__":
    sys.stdout.write(run(read_site(Path(sys.argv[1]))).model_dump_json())
