"""``edgeloop fleet ring``: what it asks, says, refuses and writes down."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from edgeloop.bootstrap import App
from edgeloop.settings import load_settings
from tests.unit.fleet.rollouts.world import NEW, OLD, World
from tests.unit.fleet.test_channel_command import run_any, shown
from tests.unit.samples.make import regressor


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGELOOP_STORE", "EDGELOOP_KEYS", "EDGELOOP_DATABASE"):
        monkeypatch.delenv(name, raising=False)


def test_a_node_is_moved_and_comes_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    words = ("fleet", "ring", "edge-3", "0", "--by", "ann", "--reason", "it is quick")
    assert run_any(capsys, home, *words) == (0, {"node": "edge-3", "ring": 0, "fleet": "default", "waits": None})
    app = App(load_settings(home))
    assert app.channel.moves("default") == {"edge-3": 0}
    [row] = [r for r in app.fleet.history(app.services()[0]) if r["event"] == "ring"]
    assert (row["who"], row["reason"]) == ("ann", "node edge-3 goes to ring 0: it is quick")
    said = shown(capsys, home, "fleet", "ring", "edge-3", "--clear")
    assert said == "edge-3 goes to the ring of its node.yaml when it next looks; no node of this name was heard yet\n"
    assert app.channel.moves("default") == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["edge-3"], "give a number, or --clear"),
        (["edge-3", "1", "--clear"], "give a number, or --clear"),
        (["edge-3", "77"], "ring 77 is not one of any service: add it to"),
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


def test_a_move_that_waits_is_told_here_and_by_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "services").mkdir(parents=True)
    url = f"sqlite:///{tmp_path / 'fleet.db'}"
    monkeypatch.setenv("EDGELOOP_DATABASE", url)
    world = World(regressor(rings=[0, 1], rollout={"soak_seconds": 0}), {"a": 0, "b": 1}, url)
    with closing(world):
        world.delivered(OLD)
        world.service = regressor(rings=[0, 1])
        world.start(NEW)
        for _ in range(2):
            world.tick()
            world.follow()
        text = world.service.model_dump_json(exclude_none=True)
        (home / "services" / "rater.yaml").write_text(text, encoding="utf-8")
        why = "a stays in ring 0 until the rollout of rater has come to ring 1 or ended"
        assert run_any(capsys, home, "fleet", "ring", "a", "1")[1]["waits"] == why
        assert run_any(capsys, home, "fleet", "show", "a")[1]["moves"] == [why]
        assert shown(capsys, home, "fleet", "show", "a").endswith(f"\n\n{why}\n")
        assert shown(capsys, home, "fleet", "ring", "a", "1") == f"{why}; --now moves it at once\n"
        assert run_any(capsys, home, "fleet", "ring", "a", "1", "--now")[1]["waits"] is None
        assert App(load_settings(home)).channel.moves("default") == {"a": 1}
