"""Where everything is: the environment before the running stack before the defaults, and no home of a later version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeloop.settings import (
    HOME_VERSION,
    InvalidSetting,
    NewerHome,
    Settings,
    check_home,
    find_rooms,
    load_settings,
    make_home,
)

VARIABLES = {"store": "EDGELOOP_STORE", "broker": "EDGELOOP_BROKER", "mlflow": "EDGELOOP_MLFLOW"}
STACK = {"store": "/stack", "broker": "mqtt://stack:1", "mlflow": "http://stack:2", "prefect": "http://stack:3/api"}


def running(home: Path, content: object = None) -> Path:
    home.mkdir(exist_ok=True)
    text = json.dumps({"addresses": STACK | {"edge-1": "http://stack:4"}} if content is None else content)
    (home / "stack.json").write_text(text, encoding="utf-8")
    return home


def test_defaults(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = load_settings(home, {})
    assert settings == Settings(home=home, rooms=find_rooms())
    assert settings.store_url == str(home / "store")
    assert settings.database_url == f"sqlite:///{home / 'fleet.db'}"


def test_a_running_stack_stands_in_for_what_the_environment_leaves_out(tmp_path: Path) -> None:
    settings = load_settings(running(tmp_path), {})
    assert {name: getattr(settings, name) for name in STACK} == STACK


@pytest.mark.parametrize(("name", "variable"), [*VARIABLES.items(), ("prefect", "PREFECT_API_URL")])
def test_the_environment_comes_first(tmp_path: Path, name: str, variable: str) -> None:
    settings = load_settings(running(tmp_path), {variable: "http://env:9"})
    assert getattr(settings, name) == "http://env:9"
    assert {n: getattr(settings, n) for n in STACK if n != name} == {n: v for n, v in STACK.items() if n != name}


def test_an_empty_variable_is_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, {"EDGELOOP_HOME": "", "EDGELOOP_STORE": ""})
    assert settings.home == Path(".edgeloop")
    assert settings.store_url == str(tmp_path / ".edgeloop" / "store")


def test_the_home_asked_for_comes_before_the_environments(tmp_path: Path) -> None:
    running(tmp_path / "env")
    assert load_settings(None, {"EDGELOOP_HOME": str(tmp_path / "env")}).broker == STACK["broker"]
    settings = load_settings(tmp_path / "asked", {"EDGELOOP_HOME": str(tmp_path / "env")})
    assert settings.home == tmp_path / "asked"
    assert settings.broker == "mqtt://127.0.0.1:1883"


def test_services_are_looked_for_where_the_environment_says_first(tmp_path: Path) -> None:
    environ = {"EDGELOOP_SERVICES": str(tmp_path / "mine"), "EDGELOOP_ROOMS": str(tmp_path / "rooms")}
    assert load_settings(tmp_path / "home", environ).service_folders == [
        tmp_path / "mine",
        tmp_path / "home" / "services",
        tmp_path / "rooms" / "deployments" / "services",
    ]


def test_the_rooms_are_here_or_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (find_rooms() / "flows").is_dir()
    for name in ("flows", "deployments"):
        (tmp_path / name).mkdir()
    assert find_rooms() == tmp_path


@pytest.mark.parametrize("content", [[], 3, None, {}, {"addresses": []}, {"addresses": None}, {"addresses": 3}])
def test_a_stack_record_of_another_shape_is_as_none(tmp_path: Path, content: object) -> None:
    running(tmp_path, content)
    (tmp_path / "stack.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_settings(tmp_path, {}).broker == "mqtt://127.0.0.1:1883"


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xff"])
def test_half_a_stack_record_is_as_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "stack.json").write_bytes(data)
    assert load_settings(tmp_path, {}).broker == "mqtt://127.0.0.1:1883"


def test_making_a_home_twice_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = make_home(Path("a/home"))
    assert home == tmp_path / "a" / "home"
    assert json.loads((home / "home.json").read_text(encoding="utf-8")) == {"version": HOME_VERSION}
    (home / "home.json").write_text('{"version": 0, "mine": 1}', encoding="utf-8")
    assert make_home(home) == home
    assert json.loads((home / "home.json").read_text(encoding="utf-8"))["mine"] == 1
    check_home(home)


def test_a_newer_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home.json").write_text(json.dumps({"version": HOME_VERSION + 1}), encoding="utf-8")
    with pytest.raises(NewerHome, match=f"home of version {HOME_VERSION + 1}, .* knows {HOME_VERSION}: upgrade"):
        load_settings(tmp_path, {})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"version": "new"}', b'{"version": null}', b"\xff"])
def test_a_home_that_cannot_be_read_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "home.json").write_bytes(data)
    with pytest.raises(InvalidSetting, match=r"home.json is not readable"):
        load_settings(tmp_path, {})
