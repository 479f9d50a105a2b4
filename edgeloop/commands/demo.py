"""``edgeloop demo``: watch a small fleet's model get better, refuse a bad update, and get better again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from edgeloop.commands.output import Context
from edgeloop.commands.stack import plan_stack, say_event

if TYPE_CHECKING:
    from edgeloop.demo.live import Live
    from edgeloop.stack.supervisor import Event


@click.command()
@click.option("--service", "name", default="digits", show_default=True, help="Service to play.")
@click.option("--rounds", type=int, default=4, show_default=True, help="Rounds after the first model.")
@click.option("--nodes", type=click.IntRange(1, 16), default=4, show_default=True, help="Edge nodes.")
@click.option("--wrong-round", type=int, help="Round whose labels are wrong on purpose; 0 for none.")
@click.option("--data", "data", type=click.Path(path_type=Path), help="Take the data set from this directory.")
@click.option("--backbone", type=click.Path(path_type=Path), help="LiteRT extractor (.tflite) to use instead.")
@click.option("--keep", is_flag=True, help="Leave the stack running afterwards, until Ctrl-C.")
@click.pass_obj
def demo(
    context: Context,
    name: str,
    rounds: int,
    nodes: int,
    wrong_round: int | None,
    data: Path | None,
    backbone: Path | None,
    keep: bool,
) -> None:
    """Bring a stack up on free ports, replay a drifting stream, and run the loop round by round."""
    from edgeloop.bootstrap import App
    from edgeloop.demo.live import Live, print_table
    from edgeloop.demo.run import Options, find_stream, run_demo
    from edgeloop.settings import make_home
    from edgeloop.sources.catalog import get_dataset
    from edgeloop.stack.running import running_stack

    options = Options(rounds=rounds, wrong_round=wrong_round)
    settings = context.settings
    service = App(settings).service(name)
    home = make_home(settings.home)
    if backbone:
        use_backbone(settings.service_folders, home, name, backbone)
        service = App(settings).service(name)
    if data and service.data:
        get_dataset(service.data, home, data)
    with Live(quiet=context.as_json) as live:
        live.stage("stream")
        stream = find_stream(App(settings), service, home, rounds)
        live.stage("stack")
        # Without the hook: here only the loop moves the alias, and it delivers by itself.
        plan = replace(plan_stack(settings, [name], nodes, free_ports=True), home=home, hook=False)
        with running_stack(plan, lambda event: _note(live, event)) as stack:
            pages = stack.addresses if keep else {}
            result = run_demo(App(stack.settings()), service, stream, home, nodes, options, live, pages)
            live.done()
            context.result(result.model_dump(mode="json"), "")
            if not context.as_json:
                print_table(result)
            if keep:
                context.say("The stack is still up. Ctrl-C stops it.")
                _until_interrupted(stack)
    if any(not node.settled for node in result.fleet) or len(result.fleet) < nodes:
        context.say("not every node serves what its ring wants: see  edgeloop status")
        sys.exit(1)


def _note(live: Live, event: Event) -> None:
    if event.state not in {"starting", "stopping", "stopped"}:
        live.note(say_event(event))


def use_backbone(folders: list[Path], home: Path, name: str, backbone: Path) -> None:
    """Write the service to the home with another backbone; the original stays as it is."""
    from edgeloop.clients.models import read_backbone
    from edgeloop.samples.service import load_service

    size = read_backbone(backbone).size
    value = load_service(name, folders).model_dump(mode="json", exclude_defaults=True)
    value["trainer"] = {**value.get("trainer", {}), "backbone": str(backbone.absolute())}
    value["image"] = {**value.get("image", {}), "size": size}
    target = home / "services" / f"{name}.yaml"
    target.parent.mkdir(exist_ok=True)
    beside = target.with_suffix(".tmp")
    beside.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    beside.replace(target)


def _until_interrupted(stack: object) -> None:
    from edgeloop.stack.running import RunningStack

    assert isinstance(stack, RunningStack)
    try:
        while not stack.wait(timeout=1.0):
            pass
    except KeyboardInterrupt:
        return
