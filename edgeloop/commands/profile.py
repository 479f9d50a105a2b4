"""``edgeloop profile``: the kinds of hardware that releases have variants for."""

from __future__ import annotations

import click

from edgeloop.commands.output import Context, table
from edgeloop.samples.profiles import Profile, list_profiles, load_profile


@click.group()
def profile() -> None:
    """Hardware profiles: what a kind of node runs, how precisely, and within which budgets."""


@profile.command("list")
@click.pass_obj
def list_all(context: Context) -> None:
    """List the profiles that a service may name in delivery.profiles."""
    folders = context.settings.profile_folders
    found = [load_profile(name, folders) for name in list_profiles(folders)]
    rows = [[p.name, p.arch, p.precision, str(p.cores), str(p.memory_mb), f"{p.latency_ms_p99:g}"] for p in found]
    text = table(rows, ["profile", "arch", "precision", "cores", "memory MB", "p99 ms"]) if rows else "no profiles"
    context.result({"profiles": [p.model_dump(mode="json") for p in found]}, text)


@profile.command("show")
@click.argument("name")
@click.pass_obj
def show(context: Context, name: str) -> None:
    """Show all fields of the profile NAME."""
    found = load_profile(name, context.settings.profile_folders)
    context.result(found.model_dump(mode="json"), _text(found))


def _text(found: Profile) -> str:
    told = found.model_dump(mode="json")
    told["runtime"] = ", ".join(f"{kind}: {runtime}" for kind, runtime in found.runtime.items())
    return "\n".join(f"{field:<15} {'-' if value is None else value}" for field, value in told.items())
