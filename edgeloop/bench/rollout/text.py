"""What was measured, for a terminal."""

from __future__ import annotations

from edgeloop.bench.rollout.result import ControlRun, FaultyKind, PerNodeRun, RolloutBench


def rollout_text(result: RolloutBench) -> str:
    """Figures first, what was missed last."""
    lines = [*_rollout(result.rollout), f"machine           {result.cpus} CPUs, load {result.load:.1f} before"]
    if result.per_node:
        lines += ["", *_per_node(result, result.per_node)]
    lines += ["", "calls of one rollout"]
    lines += [f"  {_size(run.nodes, run.rings)}  {_calls(run.calls)}" for run in result.sizes]
    lines += ["on KubeEdge"]
    lines += [f"  {_size(one.nodes, one.rings)}  {_calls(one.calls)}" for one in result.clusters]
    lines += ["", "faulty releases", *(f"  {_faulty(kind)}" for kind in result.faulty)]
    if result.rare:
        lines += [f"  {_faulty(result.rare)}"]
    return "\n".join([*lines, *(f"missed: {line}" for line in result.missed)])


def _rollout(run: ControlRun) -> list[str]:
    each = run.control_seconds / run.nodes * 1000
    return [
        f"rollout           {run.nodes} simulated nodes in {run.rings} rings: {run.state}, {run.reason}",
        f"nodes             {run.switched} serve it, {run.failed} refused it",
        f"ticks             {len(run.ticks)}: median {run.tick_p50:.2f} s, longest {run.tick_max:.2f} s",
        f"control plane     {run.control_seconds:.2f} s, {run.cpu_seconds:.2f} s of CPU, {each:.2f} ms per node",
        f"from start to end {run.wall_seconds:.1f} s with the nodes' own time",
        f"a look meanwhile  {run.look.seconds:.2f} s, {run.look.cpu:.2f} s of CPU, all nodes having said more",
        f"peak memory       {run.peak_mb:.0f} MB",
    ]


def _per_node(result: RolloutBench, run: PerNodeRun) -> list[str]:
    answered = run.answered_seconds / run.nodes * 1000
    each, cpu = run.seconds / run.nodes * 1000, run.cpu_seconds / run.nodes * 1000
    return [
        f"one Prefect task per node, {run.nodes} nodes: {each:.1f} ms per node ({answered:.1f} to the last answer),"
        f" {cpu:.1f} ms of CPU; retries: {run.task_retries} of tasks, {run.client_retries} of requests",
        f"  {result.ratio:.0f} times as slow ({result.answered_ratio:.0f} to the last answer),"
        f" {result.cpu_ratio:.0f} times the CPU;"
        f" {result.same_size_ratio:.0f} times as slow as a rollout of {run.nodes} nodes",
    ]


def _size(nodes: int, rings: int) -> str:
    return f"{nodes:>6} nodes {rings} rings"


def _calls(calls: dict[str, int]) -> str:
    return f"{sum(calls.values())}: " + ", ".join(f"{name} {count}" for name, count in calls.items())


def _faulty(kind: FaultyKind) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(kind.states.items()))
    return (
        f"{kind.kind}: {kind.runs} runs ({states}), {kind.nodes_beyond} nodes beyond the first ring in"
        f" {kind.beyond_first_ring} runs, at most {kind.most_touched} of 200 touched"
    )
