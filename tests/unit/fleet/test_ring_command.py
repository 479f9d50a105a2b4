"""``edgeloop fleet ring``: what it asks, says, refuses and writes down."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.bootstrap import App
from edgeloop.settings import load_settings
from tests.unit.fleet.test_channel_command import run_any, shown


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGELOOP_STORE", "EDGELOOP_KEYS", "EDGELOOP_DATABASE"):
        monkeypatch.delenv(name, raising=False)


def test_a_node_is_moved_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    words = ("fleet", "ring", "edge-3", "0", "--who", "ann", "--reason", "it is quick")
    assert run_any(capsys, home, *words) == (0, {"node": "edge-3", "ring": 0, "fleet": "default", "waits": None})
    app = App(load_settings(home))
    assert app.channel.moves("default") == {"edge-3": 0}
    [row] = [r for r in app.fleet.history(app.services()[0]) if r["event"] == "ring"]
    assert (row["who"], row["reason"]) == ("ann", "node edge-3 goes to ring 0: it is quick")
    said = shown(capsys, home, "fleet", "ring", "edge-3", "--clear")
    assert said == "edge-3 goes to the ring of its node.yaml when it next looks\n"
    assert app.channel.moves("default") == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["edge-3"], "give a number, or --clear"),
        (["edge-3", "1", "--clear"], "give a number, or --clear"),
        (["edge-3", "77"], "ring 77 is not one of any service: add it to  rings"),
        (["../x", "1"], "'../x' cannot be the name of a node"),
        (["edge-3", "1", "--fleet", "A/B"], "'A/B' cannot be the name of a fleet"),
        (["edge-3", "-1"], "No such option"),
        (["edge-3", "one"], "not a valid integer"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    home = tmp_path / "home"
    code, found = run_any(capsys, home, "fleet", "ring", *words)
    assert code == 2 and said in found["error"]
    assert App(load_settings(home)).channel.moves("default") == {}
