"""``edgeloop bench rollout``: what a rollout costs, and what a faulty one reaches."""

from __future__ import annotations

import click

from edgeloop.commands.output import Context


@click.command("rollout")
@click.option("--nodes", type=click.IntRange(45), default=10_000, show_default=True, help="Simulated nodes.")
@click.option(
    "--offline", type=click.FloatRange(0, 0.5), default=0.05, show_default=True, help="Share of them that is away."
)
@click.option(
    "--failing", type=click.FloatRange(0, 0.5), default=0.02, show_default=True, help="Share that refuses the release."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws who that is.")
@click.option(
    "--faulty", type=click.IntRange(0), default=1000, show_default=True, help="Rollouts of faulty releases to play."
)
@click.option(
    "--tasks",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Nodes to roll out to with one Prefect task for each, 45 or more; 0 leaves it out.",
)
@click.pass_obj
def rollout(context: Context, nodes: int, offline: float, failing: float, seed: int, faulty: int, tasks: int) -> None:
    """Print what a rollout to simulated nodes costs the control plane, and how far faulty releases come."""
    from edgeloop.bench.rollout.bench import RolloutOptions, bench_rollout
    from edgeloop.bench.rollout.text import rollout_text
    from edgeloop.settings import make_home

    settings = context.settings
    options = RolloutOptions(nodes, offline, failing, seed, faulty, tasks, settings.rooms.absolute())
    result = bench_rollout(make_home(settings.home) / "bench" / "rollout", options, context.say)
    context.result(result.model_dump(mode="json"), rollout_text(result))
