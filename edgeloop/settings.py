"""Where everything is: one typed object read from the environment, so that no other module looks at it.

A running stack writes its addresses to ``<home>/stack.json``; they stand in for what the environment leaves out,
so that ``edgeloop status`` finds the stack that ``edgeloop up`` started.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeloop.errors import BadInput

HOME_VERSION = 1


class InvalidSetting(BadInput):
    """A setting in the environment cannot be used."""


class NewerHome(BadInput):
    """The home was written by a newer edgeloop."""


class Settings(BaseModel):
    """All settings; each is the environment variable ``EDGELOOP_<NAME>`` (``prefect``: ``PREFECT_API_URL``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Path(".edgeloop")
    """Directory of all state of a local stack."""
    store: str = ""
    """Object store: a directory, or ``s3://bucket/prefix?endpoint=…``; default ``<home>/store``."""
    broker: str = "mqtt://127.0.0.1:1883"
    """MQTT broker, ``mqtt://[user:password@]host:port``."""
    mlflow: str = "http://127.0.0.1:5000"
    """MLflow tracking and registry server."""
    prefect: str = "http://127.0.0.1:4200/api"
    """Prefect API address (``PREFECT_API_URL``)."""
    database: str = ""
    """SQLAlchemy URL of the fleet state; default ``sqlite:///<home>/fleet.db``."""
    rooms: Path = Path()
    """Directory that holds flows/, tasks/, deployments/ and data/; default the current directory."""
    services: Path | None = None
    """Directory of service YAMLs, looked at before the home's and the rooms' own."""
    keys: Path | None = None
    """Directory of the keys that the channel is signed with, and of the root that nodes trust; default
    ``<home>/keys``."""
    twin_cgroup: Path | None = None
    """Control group (version 2) that is delegated to edgeloop, in which the digital twin confines its node."""

    @property
    def store_url(self) -> str:
        """The object store's URL, with the default filled in."""
        return self.store or str(self.home.absolute() / "store")

    @property
    def database_url(self) -> str:
        """The fleet database's URL, with the default filled in."""
        return self.database or f"sqlite:///{self.home.absolute() / 'fleet.db'}"

    @property
    def keys_folder(self) -> Path:
        """The directory of keys, with the default filled in."""
        return (self.keys or self.home / "keys").absolute()

    @property
    def service_folders(self) -> list[Path]:
        """Directories of service YAMLs, in the order in which they are looked at."""
        own = [self.services] if self.services else []
        return [*own, self.home / "services", self.rooms.absolute() / "deployments" / "services"]

    @property
    def profile_folders(self) -> list[Path]:
        """Directories of hardware profiles, in the order in which they are looked at."""
        return [self.home / "profiles", self.rooms.absolute() / "deployments" / "profiles"]

    @property
    def fleet_folders(self) -> list[Path]:
        """Directories of fleet YAMLs; of two of one name that of the first counts."""
        return [self.home / "fleets", self.rooms.absolute() / "deployments" / "fleets"]


def load_settings(home: Path | None = None, environ: dict[str, str] | None = None) -> Settings:
    """Read settings: environment first, then a running stack's ``stack.json``, then the defaults.

    Raises:
        InvalidSetting: a variable has a value that cannot be used.
        NewerHome: the home was written by a newer edgeloop.
    """
    env = dict(os.environ if environ is None else environ)
    chosen = home or Path(env.get("EDGELOOP_HOME") or ".edgeloop")
    check_home(chosen)
    values: dict[str, Any] = {**_stack_addresses(chosen), **_from_environment(env), "home": chosen}
    if "rooms" not in values:
        values["rooms"] = find_rooms()
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = _variable(str(first["loc"][0]))
        raise InvalidSetting(f"{name}={first['input']!r}: {first['msg']}: unset it or mend the value") from error


def _from_environment(env: dict[str, str]) -> dict[str, str]:
    return {name: env[_variable(name)] for name in Settings.model_fields if env.get(_variable(name))}


def _variable(name: str) -> str:
    return "PREFECT_API_URL" if name == "prefect" else f"EDGELOOP_{name.upper()}"


def _stack_addresses(home: Path) -> dict[str, str]:
    path = home / "stack.json"
    try:
        addresses = dict(json.loads(path.read_text(encoding="utf-8"))["addresses"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {k: str(v) for k, v in addresses.items() if k in {"store", "broker", "mlflow", "prefect"}}


def find_rooms() -> Path:
    """The directory with flows/ and deployments/: the current one, or the one that this package lies in."""
    for folder in (Path.cwd(), Path(__file__).resolve().parent.parent):
        if (folder / "flows").is_dir() and (folder / "deployments").is_dir():
            return folder
    return Path.cwd()


def check_home(home: Path) -> None:
    """Refuse a home that a newer edgeloop wrote.

    Raises:
        NewerHome: its version is above :data:`HOME_VERSION`.
    """
    path = home / "home.json"
    if not path.is_file():
        return
    try:
        version = int(json.loads(path.read_text(encoding="utf-8"))["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidSetting(
            f"{path} is not readable as a home's version ({error}): remove it or choose --home"
        ) from error
    if version > HOME_VERSION:
        raise NewerHome(f"{home} is a home of version {version}, this edgeloop knows {HOME_VERSION}: upgrade edgeloop")


def make_home(home: Path) -> Path:
    """Create ``home`` with its version file, and return it absolute. Idempotent."""
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    path = home / "home.json"
    if not path.exists():
        beside = path.with_suffix(".tmp")
        beside.write_text(json.dumps({"version": HOME_VERSION}), encoding="utf-8")
        beside.replace(path)
    return home
