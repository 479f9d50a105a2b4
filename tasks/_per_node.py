"""One Prefect task for each node: the way that rollouts do not go, kept for ``edgeloop bench rollout`` to measure.

It flatters that way. Rings are pointed as rollouts do, and a task begins when its node has obeyed: all it has to do is
to read its node's two messages. It writes no row, and nobody looks twice.

Run as ``python -m tasks._per_node SITE_JSON``; prints JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter
from pathlib import Path
from queue import Empty, SimpleQueue

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.runtime import task_run
from prefect.task_runners import ThreadPoolTaskRunner

from edgeloop.bench.edge_site import BenchFailed, until
from edgeloop.bench.rollout.result import PerNodeRun
from edgeloop.bench.rollout.site import SERVICE, Site, read_site
from edgeloop.clients.broker import Ack, Broker, Message, connect
from edgeloop.fleet.channel import Pointing
from edgeloop.fleet.targets.agent import AgentTarget
from edgeloop.samples.records import Report
from edgeloop.samples.topics import alive_topic, report_topic

_SECONDS = 10.0
#: Tasks at once; without a bound a thousand threads keep each other from their work.
_AT_ONCE = 16
_RECORD_SECONDS = 300.0


class NodeSilent(Exception):
    """A node's retained messages did not come."""


class Retries(logging.Handler):
    """Counts what Prefect's client tries again."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "retryable" in record.getMessage()


@task(name="node", retries=2, retry_delay_seconds=0.5, cache_policy=NO_CACHE)
def look_at(broker: Broker, node: str, release: str) -> tuple[str, int]:
    """Whether ``node`` serves ``release``, refused it or is away; and how often that was asked."""
    if not json.loads(_retained(broker, alive_topic(node)))["online"]:
        return "offline", task_run.run_count
    report = Report.model_validate_json(_retained(broker, report_topic(node, SERVICE)))
    found = "serving" if report.serving == release else "refused" if report.refused == release else "waiting"
    return found, task_run.run_count


def _retained(broker: Broker, topic: str) -> bytes:
    came: SimpleQueue[bytes] = SimpleQueue()

    def keep(message: Message, ack: Ack) -> None:
        came.put(message.payload)
        ack()

    broker.subscribe(topic, keep)
    try:
        return came.get(timeout=_SECONDS)
    except Empty:
        raise NodeSilent(f"{topic}: nothing came in {_SECONDS:g} s") from None
    finally:
        broker.unsubscribe(topic, keep)


@flow(name="per-node", task_runner=ThreadPoolTaskRunner(max_workers=_AT_ONCE))  # type: ignore[arg-type]
def per_node(path: str) -> PerNodeRun:
    """Ring by ring: point it, wait for its nodes, look at each in a task of its own."""
    site = read_site(Path(path))
    broker = connect(site.broker, "bench-per-node")
    try:
        return _roll_out(site, broker)
    finally:
        broker.close()


def _roll_out(site: Site, broker: Broker) -> PerNodeRun:
    target = AgentTarget(site.publisher(), broker)
    members, found, retries = site.members(), Counter[str](), 0
    seconds = cpu = 0.0
    for ring in range(site.rings):
        target.point(SERVICE, {ring: Pointing(site.new)})
        until(lambda ring=ring: site.obeyed().get(ring, 0) > 1, "the simulated nodes")  # type: ignore[misc]
        began = time.perf_counter(), cpu_seconds()
        looks = [look_at.submit(broker, member.name, site.new) for member in members if member.ring == ring]
        for look in looks:
            outcome, tries = look.result()
            found[outcome] += 1
            retries += tries - 1
        seconds += time.perf_counter() - began[0]
        cpu += cpu_seconds() - began[1]
    before = time.perf_counter(), cpu_seconds()
    wait_for_records(len(members))
    return PerNodeRun(
        nodes=site.nodes,
        answered_seconds=seconds,
        seconds=seconds + time.perf_counter() - before[0],
        cpu_seconds=cpu + cpu_seconds() - before[1],
        nodes_by_outcome=dict(sorted(found.items())),
        task_retries=retries,
    )


def wait_for_records(tasks: int) -> None:
    """Until the server knows that so many tasks have ended: it writes that down some time after they have.

    It is asked once a second, so that it has better things to do.
    """
    ended = {"task_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}}
    end = time.monotonic() + _RECORD_SECONDS
    with get_client(sync_client=True) as client:
        while int(client.request("POST", "/task_runs/count", json=ended).json()) < tasks:
            if time.monotonic() > end:
                raise BenchFailed(f"Prefect wrote down less than {tasks} tasks in {_RECORD_SECONDS:g} s")
            time.sleep(1)


def cpu_seconds() -> float:
    """CPU time so far of this process and its children, of which the server is one."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            mine = int(folder.name) == os.getpid() or int(fields[1]) == os.getpid()
            ticks += int(fields[11]) + int(fields[12]) if mine else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def main(path: Path) -> None:
    """Measure, and print what was found."""
    again = Retries()
    logging.getLogger("prefect").addHandler(again)
    result = per_node(str(path))
    sys.stdout.write(result.model_copy(update={"client_retries": again.count}).model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
