"""Looks for what would keep a stack from running, for ``edgeloop doctor``; each finding says what to do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from uuid import uuid4

from edgeloop.errors import EdgeloopError
from edgeloop.samples.topics import MARKS, NODES, parse_node_topic
from edgeloop.settings import HOME_VERSION, Settings, check_home
from edgeloop.stack.health import bare_address, broker_answers, http_answers
from edgeloop.stack.parts import find_mosquitto
from edgeloop.stack.ports import DEFAULTS, default_port, earlier_ports, is_free
from edgeloop.stack.record import read_record

MIN_FREE_BYTES = 2_000_000_000
#: What has to be there of each extra; a tuple is a choice.
EXTRAS: Mapping[str, tuple[str | tuple[str, ...], ...]] = {
    "cloud": (
        "prefect",
        "mlflow",
        "deltalake",
        "great-expectations",
        "httpx",
        "pandas",
        "pyarrow",
        "sqlalchemy",
    ),
    "train": (("tensorflow-cpu", "tensorflow"), "keras", "scikit-learn", "skl2onnx"),
    "web": ("fastapi", "jinja2"),
}
_NODE = (
    "numpy",
    "obstore",
    "paho-mqtt",
    "pydantic",
    "pillow",
    "ai-edge-litert",
    "onnxruntime",
    "arro3-io",
)


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    """What to do; empty when nothing has to be done."""
    warning: bool = False
    """It works without, only worse."""


Version = Callable[[str], str | None]


def installed_version(package: str) -> str | None:
    """Version of an installed package, without importing it; None when it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def diagnose(settings: Settings, version: Version = installed_version) -> list[Check]:
    """Every check, in the order in which to mend things. Asks servers at most two seconds each."""
    running = _runs(settings)
    return [
        check_python(),
        check_packages("node", _NODE, version),
        *(check_packages(extra, packages, version) for extra, packages in EXTRAS.items()),
        check_fastapi(version("fastapi")),
        check_home_version(settings.home),
        check_disk(settings.home),
        check_rooms(settings.rooms),
        check_ports(settings.home, running),
        check_store(settings),
        check_broker(settings, running, version),
        *check_reports(settings, running),
        check_server(
            "registry",
            settings.mlflow,
            "/health",
            Settings.model_fields["mlflow"].default,
            running,
        ),
        check_server(
            "orchestrator",
            settings.prefect,
            "/health",
            Settings.model_fields["prefect"].default,
            running,
        ),
    ]


def _runs(settings: Settings) -> bool:
    record = read_record(settings.home)
    return record is not None and record.supervisor.alive


def check_python(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """The interpreter is one that the pinned packages exist for."""
    shown = ".".join(map(str, version))
    ok = (3, 11) <= version < (3, 14)
    return Check("python", ok, shown, "" if ok else "use Python 3.11, 3.12 or 3.13")


def check_packages(extra: str, packages: tuple[str | tuple[str, ...], ...], version: Version) -> Check:
    """The packages of an extra are installed."""
    choices = [(package,) if isinstance(package, str) else package for package in packages]
    found = {choice[0]: next((f"{name} {v}" for name in choice if (v := version(name))), None) for choice in choices}
    missing = [name for name, seen in found.items() if seen is None]
    if missing:
        what = "edgeloop" if extra == "node" else f"'edgeloop[{extra}]'"
        return Check(
            f"packages: {extra}",
            False,
            f"missing: {', '.join(missing)}",
            f"run  pip install {what}",
        )
    return Check(f"packages: {extra}", True, ", ".join(seen for seen in found.values() if seen))


def check_fastapi(version: str | None) -> Check:
    """FastAPI is one that the Prefect server starts with."""
    parts = (version or "").split(".")
    too_new = len(parts) > 1 and parts[0] == "0" and parts[1].isdigit() and int(parts[1]) >= 151
    fix = "run  pip install 'fastapi<0.151'"
    return Check("fastapi", not too_new, version or "not installed", fix if too_new else "")


def check_home_version(home: Path) -> Check:
    """The home can be read by this edgeloop."""
    if not (home / "home.json").is_file():
        return Check("home", True, f"{home} will be made by  edgeloop up")
    try:
        check_home(home)
    except EdgeloopError as error:
        return Check("home", False, str(error), "upgrade edgeloop or choose another --home")
    return Check("home", True, f"{home}, version {HOME_VERSION}")


def check_disk(home: Path, least: int = MIN_FREE_BYTES) -> Check:
    """There is room for data, models and databases."""
    place = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    ok = free >= least
    fix = "" if ok else f"free {(least - free) / 1e9:.1f} GB, or choose a --home on another disk"
    return Check("disk", ok, f"{free / 1e9:.1f} GB free at {place}", fix, warning=True)


def check_rooms(rooms: Path) -> Check:
    """The flows and their registration are found."""
    missing = [name for name in ("flows", "tasks", "deployments/register.py") if not (rooms / name).exists()]
    if missing:
        fix = "run in the project's directory, or set EDGELOOP_ROOMS"
        return Check("rooms", False, f"{rooms.absolute()} has no {', '.join(missing)}", fix)
    return Check("rooms", True, str(rooms.absolute()))


def check_ports(home: Path, running: bool) -> Check:
    """The ports that ``edgeloop up`` would take are free."""
    chosen = {
        **{part: default_port(part) for part in (*DEFAULTS, "edge-1", "edge-2")},
        **earlier_ports(home),
    }
    shown = ", ".join(f"{part} {port}" for part, port in chosen.items())
    if running:
        return Check("ports", True, f"used by the running stack: {shown}")
    taken = [f"{part} {port}" for part, port in chosen.items() if not is_free(port)]
    if taken:
        return Check(
            "ports",
            False,
            f"taken: {', '.join(taken)}",
            "stop what listens there, or use  --free-ports",
        )
    return Check("ports", True, shown)


def check_store(settings: Settings) -> Check:
    """The object store takes and gives back an object."""
    if not settings.store and not Path(settings.store_url).exists():
        return Check("store", True, f"{settings.store_url} will be made by  edgeloop up")
    from edgeloop.clients.objects import open_store

    try:
        open_store(settings.store_url).check()
    except EdgeloopError as error:
        return Check(
            "store",
            False,
            str(error),
            "set EDGELOOP_STORE to a directory or an S3 bucket that can be written",
        )
    return Check("store", True, settings.store_url)


def check_broker(settings: Settings, running: bool, version: Version) -> Check:
    """The broker answers, or one could be started."""
    if running or settings.broker != Settings.model_fields["broker"].default:
        missing = broker_answers(settings.broker)
        fix = "start the broker, or mend EDGELOOP_BROKER" if missing else ""
        return Check("broker", missing is None, missing or bare_address(settings.broker), fix)
    mosquitto, amqtt = find_mosquitto(), version("amqtt")
    if mosquitto:
        return Check("broker", True, mosquitto)
    install = "install mosquitto (apt install mosquitto)"
    if amqtt:
        detail = f"amqtt {amqtt}: slower, and nodes cannot share devices"
        return Check("broker", False, detail, install, warning=True)
    return Check(
        "broker",
        False,
        "neither mosquitto nor amqtt is installed",
        f"{install} or  pip install 'edgeloop[cloud]'",
    )


def check_reports(settings: Settings, running: bool) -> list[Check]:
    """The broker tells all that its nodes said; nothing where no broker answers, which is found elsewhere."""
    if not running and settings.broker == Settings.model_fields["broker"].default:
        return []
    try:
        from edgeloop.clients.broker import connect

        with closing(connect(settings.broker, f"edgeloop-doctor-{uuid4().hex[:12]}", receive_maximum=2048)) as broker:
            found = broker.gather(NODES, MARKS)
    except (EdgeloopError, ImportError):
        return []
    kept = sum(parse_node_topic(message.topic) is not None for message in found.messages)
    fix = "" if found.complete else f"set max_queued_messages 0, and let this user publish on {MARKS}/+"
    return [Check("reports", found.complete, found.why or f"{kept} words of nodes, read to the end", fix)]


def check_server(name: str, address: str, path: str, default: str, running: bool) -> Check:
    """A server answers; one that is only the default and of no running stack need not."""
    missing = http_answers(f"{address.rstrip('/')}{path}")
    if missing is None:
        return Check(name, True, address)
    if not running and address == default:
        return Check(name, True, f"not running: {address}")
    return Check(name, False, missing, f"run  edgeloop up, or see logs of the {name}")
