"""What ``edgeloop bench rollout`` prints."""

from __future__ import annotations

import statistics

from pydantic import BaseModel, Field, computed_field

MOST_TICK_SECONDS = 2.0
MOST_MB = 500.0
LEAST_RATIO = 50.0


class TickTime(BaseModel):
    """One call of the control plane."""

    seconds: float
    cpu: float
    messages: int
    """That came from the broker."""


class ControlRun(BaseModel):
    """One rollout, as its control plane saw it."""

    nodes: int
    rings: int
    state: str
    reason: str
    switched: int
    """Online nodes that serve the new release."""
    failed: int
    start: TickTime
    ticks: list[TickTime]
    wall_seconds: float
    """From the promotion to the end, the nodes' own time with it."""
    calls: dict[str, int]
    """Of the whole rollout, by kind."""
    look: TickTime
    """Hearing on a new connection all nodes, which all said more, and summing up every ring: what a tick of the
    schedule costs while a ring soaks."""
    peak_mb: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def control_seconds(self) -> float:
        """Time in which the control plane worked or waited for the broker and its stores."""
        return self.start.seconds + sum(one.seconds for one in self.ticks)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cpu_seconds(self) -> float:
        """Its CPU time."""
        return self.start.cpu + sum(one.cpu for one in self.ticks)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tick_p50(self) -> float:
        """Median seconds of a tick."""
        return statistics.median(one.seconds for one in self.ticks)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tick_max(self) -> float:
        """Seconds of the longest tick."""
        return max(one.seconds for one in self.ticks)


class FaultyKind(BaseModel):
    """Rollouts of releases with one kind of fault."""

    kind: str
    runs: int = 0
    states: dict[str, int] = Field(default_factory=dict)
    """How they ended."""
    beyond_first_ring: int = 0
    """Rollouts that reached a node outside of the first ring."""
    nodes_beyond: int = 0
    """Nodes outside of the first ring that they reached."""
    most_touched: int = 0
    """Most nodes that one rollout told to switch."""


class PerNodeRun(BaseModel):
    """The same rollout as one Prefect task for each node."""

    nodes: int
    answered_seconds: float
    """From the submission of the tasks to their last answer, all rings together; what the nodes took is left out."""
    seconds: float
    """The same, to when Prefect had written down all of them: it works that off behind its client."""
    cpu_seconds: float
    """Of the flow's process and the server, meanwhile."""
    nodes_by_outcome: dict[str, int]
    task_retries: int = 0
    client_retries: int = 0
    """Requests that Prefect's client sent again, because the server did not answer or said so."""


class ClusterCalls(BaseModel):
    """Calls of one rollout on KubeEdge, by verb and resource; each page of 500 is one."""

    nodes: int
    rings: int
    calls: dict[str, int]


class RolloutBench(BaseModel):
    """What ``edgeloop bench rollout`` measured; nodes are simulated."""

    offline: float
    failing: float
    seed: int
    cpus: int
    load: float
    """Processes that wanted a CPU in the minute before the first measurement: more than ``cpus``, and times are of a
    machine that did other work too."""
    rollout: ControlRun
    """Of the fleet that was asked for, in three rings."""
    same_size: ControlRun | None = None
    """Of as many nodes as ``per_node``."""
    per_node: PerNodeRun | None = None
    sizes: list[ControlRun]
    clusters: list[ClusterCalls]
    faulty: list[FaultyKind]
    rare: FaultyKind | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def ratio(self) -> float | None:
        """Seconds per node of one task for each, over ours."""
        return self._over(self.rollout, self.per_node.seconds) if self.per_node else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def answered_ratio(self) -> float | None:
        """The same, to the tasks' last answer and not to Prefect's record of them."""
        return self._over(self.rollout, self.per_node.answered_seconds) if self.per_node else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def same_size_ratio(self) -> float | None:
        """``ratio`` with a rollout of as many nodes as there were tasks."""
        return self._over(self.same_size, self.per_node.seconds) if self.per_node and self.same_size else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cpu_ratio(self) -> float | None:
        """CPU seconds per node, Prefect's server with it, over ours: other work of the machine changes it little."""
        if self.per_node is None:
            return None
        return (self.per_node.cpu_seconds / self.per_node.nodes) / (self.rollout.cpu_seconds / self.rollout.nodes)

    def _over(self, ours: ControlRun, seconds: float) -> float:
        assert self.per_node is not None
        return (seconds / self.per_node.nodes) / (ours.control_seconds / ours.nodes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def missed(self) -> list[str]:
        """What must hold and does not."""
        found, run = [], self.rollout
        if run.state != "done":
            found.append(f"the rollout is {run.state}, not done: {run.reason}")
        if run.tick_max > MOST_TICK_SECONDS:
            found.append(f"a tick took {run.tick_max:.2f} s, not at most {MOST_TICK_SECONDS:g}")
        if run.peak_mb > MOST_MB:
            found.append(f"the control plane took {run.peak_mb:.0f} MB, not at most {MOST_MB:g}")
        if self.ratio is not None and self.ratio < LEAST_RATIO:
            found.append(f"one task per node is {self.ratio:.0f} times as slow, not at least {LEAST_RATIO:g}")
        if any(kind.beyond_first_ring for kind in self.faulty):
            found.append(f"{sum(k.nodes_beyond for k in self.faulty)} nodes beyond the first ring got a faulty release")
        return found + _grown(self.sizes)


def _grown(runs: list[ControlRun]) -> list[str]:
    """Fleets whose calls are not a matter of rings: more than twice those of the smallest with as many."""
    found = []
    for run in runs:
        least = min(sum(one.calls.values()) for one in runs if one.rings == run.rings)
        if (calls := sum(run.calls.values())) > 2 * least:
            found.append(f"{run.nodes} nodes in {run.rings} rings took {calls} calls, the smallest fleet {least}")
    return found
