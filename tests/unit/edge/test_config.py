from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.edge.config import MalformedNode, NodeSettings, load_node_settings

GOOD = """\
node: n1
ring: 1
services: [wine-rater, cats-dogs]
state: state
store: ../store
broker: mqtt://127.0.0.1:1883
"""


def load(folder: Path, text: str, **environ: str) -> NodeSettings:
    path = folder / "node.yaml"
    path.write_text(text, encoding="utf-8")
    return load_node_settings(path, environ)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.state == tmp_path / "state"
    assert Path(settings.store).resolve() == tmp_path.parent / "store"
    assert settings.services == ["wine-rater", "cats-dogs"]
    assert settings.devices == ["+"] and settings.http == "127.0.0.1:8081"


def test_a_store_url_stays_as_it_is(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("../store", "s3://b/p?x=1")).store == "s3://b/p?x=1"


def test_the_environment_overrides_and_completes(tmp_path: Path) -> None:
    text = "\n".join(line for line in GOOD.splitlines() if not line.startswith("broker"))
    settings = load(tmp_path, text, EDGELOOP_STORE="s3://other", EDGELOOP_BROKER="mqtt://h:1")
    assert (settings.store, settings.broker) == ("s3://other", "mqtt://h:1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ring: 1", "ring: -1"), r"node.yaml:2: field ring: .*\(given: -1\)"),
        (("ring: 1", "rings: 1"), r"node.yaml:\d+: field ring: Field required"),
        (("node: n1", "node: a/b"), r"node.yaml:1: field node: "),
        (("cats-dogs]", "Cats]"), r"node.yaml:3: field services.1: "),
        (("state: state", "state: state\nmore: 1"), r"node.yaml:5: field more: "),
        (("state: state", "state: state\ngroup: a/b"), r"node.yaml:5: field group: "),
        (("node: n1", "node: [n1"), r"node.yaml:2: not YAML"),
        (("node: n1", "node: n1 # \0"), r"node.yaml:1: not YAML: .*special characters"),
        (("node: n1", "node: 2024-13-01"), r"node.yaml:1: not YAML: month must be"),
        (("node: n1", "node: " + "[" * 5000), r"node.yaml:1: not YAML: .*recursion"),
        (("state: state", "state: state\n1: more"), r"node.yaml:5: field 1: "),
        (("state: state", 'state: state\n"a\\nb": more'), r"node.yaml:5: field a\?b: "),
        (("state: state", 'state: state\ndevices: ["#"]'), r"node.yaml:5: field devices.0: .*\(given: '#'\)"),
        (("state: state", "state: state\ndevices: [d/e]"), r"node.yaml:5: field devices.0: "),
        (("state: state", "state: state\ndevices: [cam+]"), r"node.yaml:5: field devices.0: "),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(MalformedNode, match=message) as caught:
        load(tmp_path, GOOD.replace(*change))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        ("state: state", "state: state\nbrokers: mqtt://ann:hush@h"),
        ("broker: mqtt://127.0.0.1:1883", "broker: [mqtt://ann:hush@h]"),
        ("store: ../store", "store: [s3://ann:hush@b]"),
        ("state: state", "state: state\nendpoints: {cats: 'http://ann:hush@h'}"),
        ("state: state", "state: state\ntls: {cert: a, key: b, password: hush}"),
        ("state: state", "state: state\ntls: hush"),
    ],
)
def test_a_mistake_does_not_tell_a_password(tmp_path: Path, change: tuple[str, str]) -> None:
    with pytest.raises(MalformedNode, match=r"node.yaml:\d+: field ") as caught:
        load(tmp_path, GOOD.replace(*change))
    assert "hush" not in str(caught.value)


def test_devices_are_names_or_all(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "devices: [cam-1, +]\n").devices == ["cam-1", "+"]


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MalformedNode, match="a node is a mapping"):
        load(tmp_path, text)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedNode, match=r"none\.yaml cannot be read"):
        load_node_settings(tmp_path / "none.yaml", {})
