"""``edgeloop up``, ``down``, ``status`` and ``doctor``: the stack on this machine."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgeloop.commands.output import Context, table

if TYPE_CHECKING:
    from edgeloop.settings import Settings
    from edgeloop.stack.plan import StackPlan
    from edgeloop.stack.running import RunningStack
    from edgeloop.stack.supervisor import Event


@click.command()
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True, help="Edge nodes to start.")
@click.option("--service", "services", multiple=True, help="Service the nodes serve; repeat it. Default: all.")
@click.option("--free-ports", is_flag=True, help="Take free ports instead of the usual ones.")
@click.option("--fleet", default="local", show_default=True, help="Name of the fleet YAML that says the rings.")
@click.option("--port", "ports", multiple=True, metavar="PART=PORT", help="Port of a part: prefect=4201.")
@click.pass_obj
def up(
    context: Context, nodes: int, services: tuple[str, ...], free_ports: bool, fleet: str, ports: tuple[str, ...]
) -> None:
    """Start the stack and keep it running until Ctrl-C."""
    from edgeloop.bootstrap import App
    from edgeloop.stack.running import run_foreground

    settings = context.settings
    app = App(settings)
    names = [app.service(name).name for name in (services or app.services())]
    plan = plan_stack(settings, names, nodes, free_ports, _ports(ports), fleet)

    def ready(stack: RunningStack) -> None:
        rows = [[name, address] for name, address in stack.addresses.items()]
        context.result({"addresses": stack.addresses, "pids": stack.pids()}, table(rows, ["part", "address"]))
        context.say("Everything is up. Ctrl-C stops it.")

    run_foreground(plan, lambda event: context.say(say_event(event)), ready)


def say_event(event: Event) -> str:
    """What happened to a part, in a line."""
    after = f" after {event.seconds:.1f} s" if event.seconds >= 0.1 else ""
    return f"{event.part} {event.state}{after}" + (f": {event.detail}" if event.detail else "")


def plan_stack(
    settings: Settings,
    services: list[str],
    nodes: int,
    free_ports: bool,
    ports: dict[str, int] | None = None,
    fleet: str = "local",
) -> StackPlan:
    """The plan of a stack for these settings; the bucket of an S3 store is made if it is missing."""
    import os

    from edgeloop.bootstrap import App
    from edgeloop.clients.objects import ensure_bucket
    from edgeloop.fleet.members import load_fleet
    from edgeloop.stack.plan import StackPlan

    if settings.store.startswith("s3:"):
        ensure_bucket(settings.store)
    rings = load_fleet(fleet, settings.fleet_folders)

    return StackPlan(
        home=settings.home,
        rooms=settings.rooms,
        services=services,
        nodes=nodes,
        rings={number: rings.ring_of(f"edge-{number}") for number in range(1, nodes + 1)},
        ports=ports or {},
        free_ports=free_ports,
        store_url=settings.store,
        root=App(settings).channel.ensure(),
        page=True,
        hook=True,
        database=os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", ""),
    )


def _ports(words: tuple[str, ...]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for word in words:
        part, _, number = word.partition("=")
        if not number.isdigit() or not 0 < int(number) < 65536:
            raise click.BadParameter(f"{word!r} is not PART=PORT, such as prefect=4201")
        ports[part] = int(number)
    return ports


@click.command()
@click.pass_obj
def down(context: Context) -> None:
    """Stop the stack that runs on this home."""
    from edgeloop.stack.control import stop_running

    stopped = stop_running(context.settings.home)
    context.result({"stopped": stopped}, f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@click.command()
@click.pass_obj
def status(context: Context) -> None:
    """Show parts, flows, champions, and what each node serves."""
    from edgeloop.commands.overview import overview, overview_text

    found = overview(context.settings)
    context.result(found, overview_text(found))


@click.command()
@click.pass_obj
def doctor(context: Context) -> None:
    """Check what edgeloop stands on; each failure says what to do. Exit code 1 if one failed."""
    from edgeloop.commands.channel_check import check_channel
    from edgeloop.stack.doctor import diagnose

    checks = [*diagnose(context.settings), *check_channel(context.settings)]
    failed = [c for c in checks if not c.ok and not c.warning]
    lines = [f"{_mark(c.ok, c.warning)} {c.name}: {c.detail}" + (f"\n       {c.fix}" if c.fix else "") for c in checks]
    context.result({"ok": not failed, "checks": [asdict(c) for c in checks]}, "\n".join(lines))
    if failed:
        sys.exit(1)


def _mark(ok: bool, warning: bool) -> str:
    if ok:
        return "  ok "
    return " warn" if warning else " FAIL"
