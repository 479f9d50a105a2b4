"""The command line: every command prints for people, or with ``--json`` one JSON object on stdout and nothing else.

Failures are one line on stderr that names the thing, the value and the next step; exit code 2 for bad input, 1 for
anything else that failed.
"""

from __future__ import annotations

import json
import sys
from collections import deque
from pathlib import Path

import click

from edgeloop import __version__
from edgeloop.commands.bench import bench
from edgeloop.commands.channel import channel
from edgeloop.commands.data import data
from edgeloop.commands.demo import demo
from edgeloop.commands.drift import drift
from edgeloop.commands.fleet import fleet
from edgeloop.commands.label import label
from edgeloop.commands.node import node
from edgeloop.commands.output import Context
from edgeloop.commands.profile import profile
from edgeloop.commands.release import release
from edgeloop.commands.rollout import rollback, rollout
from edgeloop.commands.serve import serve
from edgeloop.commands.stack import doctor, down, status, up
from edgeloop.commands.twin import twin
from edgeloop.commands.web import web
from edgeloop.errors import EdgeloopError, MissingExtra

#: Which extra brings a package that a node does without.
_EXTRAS = {
    "cluster": {"kubernetes"},
    "deltas": {"bsdiff4", "zstandard"},
    "train": {"keras", "sklearn", "skl2onnx", "tensorflow"},
    "cloud": {
        "amqtt", "deltalake", "great_expectations", "httpx", "matplotlib", "minio", "mlflow", "pandas", "prefect",
        "pyarrow", "rich", "sqlalchemy",
    },
    "web": {"fastapi", "jinja2"},
}  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeloop")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="EDGELOOP_HOME",
    help="Directory of all local state (default ./.edgeloop).",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else there.")
@click.pass_context
def cli(context: click.Context, home: Path | None, as_json: bool) -> None:
    """Keeps the models on a fleet of edge nodes getting better."""
    context.obj = Context(home=home, as_json=as_json)


for command in (
    up, down, status, doctor, data, demo, bench, web, node, serve, channel, label, drift, profile, release, rollout,
    rollback, fleet, twin,
):  # fmt: skip
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run a command and turn its failure into one line and an exit code."""
    shared, own = _shared_first(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in shared
    try:
        sys.exit(cli.main(shared + own, prog_name="edgeloop", standalone_mode=False) or 0)
    except EdgeloopError as error:
        _fail(str(error), error.exit_code, as_json)
    except ModuleNotFoundError as error:
        _fail(str(_missing(error)), 2, as_json)
    except click.ClickException as error:
        _mistake(error, as_json)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130, as_json)


def _help_of(error: click.ClickException) -> str:
    """The help that is nearest to the mistake."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{context.command_path if context else 'edgeloop'} --help"


def _mistake(error: click.ClickException, as_json: bool) -> None:
    """What click refuses, on one line; a group without a command, to people, is its help."""
    said = error.format_message()
    if said.startswith("Usage:") and not as_json:
        sys.stderr.write(f"{said}\n")
        sys.exit(2)
    said = "no command was given" if said.startswith("Usage:") else said.rstrip(".")
    _fail(f"{said}: see  {_help_of(error)}", 2, as_json)


def _shared_first(words: list[str]) -> tuple[list[str], list[str]]:
    """The options that all commands share may stand anywhere; click wants them before the command.

    ``--json`` with a path behind a command that has such an option is that command's.
    """
    first: list[str] = []
    rest: list[str] = []
    command: click.Command = cli
    left = deque(words)
    while left:
        word = left.popleft()
        if word == "--home":
            first += [word, *([left.popleft()] if left else [])]
        elif word == "--json" and _writes_json(command) and left and not left[0].startswith("-"):
            rest += [word, left.popleft()]
        elif word == "--json" or word.startswith("--home="):
            first.append(word)
        else:
            rest.append(word)
            command = command.commands.get(word, command) if isinstance(command, click.Group) else command
    return first, rest


def _writes_json(command: click.Command) -> bool:
    return command is not cli and any("--json" in one.opts for one in command.params)


def _missing(error: ModuleNotFoundError) -> Exception:
    package = (error.name or "").split(".")[0]
    extra = next((name for name, packages in _EXTRAS.items() if package in packages), None)
    if extra is None:
        raise error
    return MissingExtra(package, extra)


def _fail(message: str, code: int, as_json: bool) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"edgeloop: {line}\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": line, "exit_code": code}) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
