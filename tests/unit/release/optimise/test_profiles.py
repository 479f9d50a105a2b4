"""The profiles that are shipped, and the commands that show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeloop.bootstrap import open_app
from edgeloop.cli import main
from edgeloop.release.optimise.plan import NoCompiler, recipe
from edgeloop.samples.profiles import MalformedProfile, UnknownProfile, list_profiles, load_profile
from edgeloop.settings import Settings
from tests.unit.release.optimise.bars import profile
from tests.unit.samples.make import classifier, looker, regressor

ROOT = Path(__file__).resolve().parents[4]
SHIPPED = ROOT / "deployments" / "profiles"
NAMES = ["coral-edgetpu", "generic-amd64", "generic-arm64", "jetson-orin-nano", "raspberry-pi-4"]
IMAGE = ("backbone", "head", "keras")


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(list(words))
    return int(left.value.code or 0)


def test_these_are_shipped() -> None:
    assert list_profiles([SHIPPED]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_runs_every_kind_or_says_what_it_lacks(name: str) -> None:
    found = load_profile(name, [SHIPPED])
    assert found.description
    for service in (regressor(), classifier()):
        assert recipe(found, service, ("model",), lambda _: None).runtime == "onnx"
    if found.compiler is None:
        assert recipe(found, looker(), IMAGE, lambda _: None).runtime == "litert"
        return
    with pytest.raises(NoCompiler, match=f"profile {name} needs the program {found.compiler}"):
        recipe(found, looker(), IMAGE, lambda _: None)


def test_a_profile_of_the_home_comes_first(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, rooms=ROOT)
    assert load_profile("raspberry-pi-4", settings.profile_folders).cores == 4
    (tmp_path / "profiles").mkdir()
    own = profile("raspberry-pi-4").model_dump_json()
    (tmp_path / "profiles" / "raspberry-pi-4.yaml").write_text(own, encoding="utf-8")
    assert load_profile("raspberry-pi-4", settings.profile_folders).cores == 1


def test_the_app_loads_the_profiles_that_a_service_names(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    named = looker(delivery={"profiles": ["raspberry-pi-4", "generic-amd64", "raspberry-pi-4"]})
    assert [p.name for p in app.profiles(named)] == ["raspberry-pi-4", "generic-amd64"]
    assert app.profiles(looker()) == []
    with pytest.raises(UnknownProfile, match="unknown profile 'toaster'; known: coral-edgetpu, generic-amd64"):
        app.profiles(looker(delivery={"profiles": ["toaster"]}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nname: [", "is not YAML"),
        ("version: 1\nname: board\n", "field description: Field required"),
        (profile("other").model_dump_json(), "field name: is 'other', the file says 'board'"),
        (profile("board").model_dump_json().replace('"cores":1', '"cores":0'), "field cores: "),
        (profile("board").model_dump_json().replace('"cores"', '"core"'), "field (cores|core): "),
        (profile("board").model_dump_json().replace("arm64", "mips"), "field arch: "),
    ],
)
def test_a_malformed_profile_is_named_with_its_field(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "board.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MalformedProfile, match=said) as raised:
        load_profile("board", [tmp_path])
    assert "\n" not in str(raised.value)


def test_the_commands_list_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--home", str(tmp_path), "--json", "profile", "list") == 0
    listed = json.loads(capsys.readouterr().out)["profiles"]
    assert [p["name"] for p in listed] == NAMES
    assert run("--home", str(tmp_path), "profile", "list") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["coral-edgetpu", "arm64", "int8"]
    assert run("--home", str(tmp_path), "profile", "show", "raspberry-pi-4") == 0
    shown = capsys.readouterr().out
    assert "image-classifier: litert" in shown
    assert run("--home", str(tmp_path), "--json", "profile", "show", "raspberry-pi-4") == 0
    assert json.loads(capsys.readouterr().out) == load_profile("raspberry-pi-4", [SHIPPED]).model_dump(mode="json")


def test_a_profile_that_is_not_there_is_the_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--home", str(tmp_path), "profile", "show", "toaster") == 2
    assert capsys.readouterr().err.startswith("edgeloop: unknown profile 'toaster'; known: ")
