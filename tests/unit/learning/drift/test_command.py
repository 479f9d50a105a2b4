"""``edgeloop drift`` says what was found, against which threshold, and what comes next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.commands.overview import overview_text
from edgeloop.settings import load_settings
from edgeloop.web.overview import look_at
from edgeloop.web.troubles import troubles
from tests.unit.learning.drift.world import World, wine_rater


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGELOOP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def watched(drifted: bool) -> World:
    """A watch in the home's own store and ledger."""
    app = App(load_settings())
    app.fleet.close()  # it made the home
    world = World(app.settings.home, wine_rater(), app.store)
    rng = np.random.default_rng(0)
    world.deliver(rng.normal(5, 1, (80, 11)), "reference")
    world.promote()
    world.deliver(rng.normal(9 if drifted else 5, 1, (60, 11)), prediction="5.0")
    world.monitor()
    return world


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_finding_is_shown_with_its_threshold_and_drawn(home: Path, capsys: Any, tmp_path: Path) -> None:
    watched(drifted=True)
    picture = tmp_path / "new" / "drift.png"
    code, out, _ = run(capsys, "drift", "wine-rater", "--plot", str(picture))
    assert code == 0
    assert out.startswith("wine-rater, version 1: inputs drifted (11 of 12 quantities)")
    assert "input alcohol" in out
    assert "evidence" in out
    assert "ledger: inputs drifted: " in out
    assert "next: a retrain was asked for; label new audit samples" in out
    assert picture.read_bytes()[:4] == b"\x89PNG"
    code, out, _ = run(capsys, "drift", "wine-rater", "--json")
    said = json.loads(out)
    assert (code, said["drifted"], said["champion"], len(said["ledger"])) == (0, True, "1", 11)
    assert said["findings"][0]["statistic"] >= said["findings"][0]["threshold"]
    assert len(said["quantities"]) == 12


def test_no_finding_is_said(home: Path, capsys: Any) -> None:
    watched(drifted=False)
    code, out, _ = run(capsys, "drift", "wine-rater")
    assert code == 0
    assert "no drift in 60 samples" in out
    assert "next: nothing to do" in out


def test_a_service_that_was_never_looked_at_is_the_users_mistake(home: Path, capsys: Any) -> None:
    code, _, err = run(capsys, "drift", "wine-rater")
    assert code == 2
    assert "wine-rater has no drift watch yet: promote a first model" in err
    code, _, err = run(capsys, "drift", "nothing-such")
    assert code == 2
    assert "nothing-such" in err


def test_nothing_is_drawn_of_a_watch_that_tested_nothing(home: Path, capsys: Any, tmp_path: Path) -> None:
    app = App(load_settings())
    app.fleet.close()
    world = World(app.settings.home, wine_rater(), app.store)
    world.promote()
    world.look()
    code, _, err = run(capsys, "drift", "wine-rater", "--plot", str(tmp_path / "drift.png"))
    assert code == 2
    assert "has tested nothing yet: wait for audit samples" in err


def test_the_status_and_the_page_say_that_a_champion_has_drifted(home: Path) -> None:
    world = watched(drifted=True)

    class Known(App):
        registry: Any = world.registry

    found = look_at(Known(load_settings()))
    reason = found["champions"]["wine-rater"]["drift"]
    assert reason.startswith("inputs drifted: ")
    assert "drifted" in overview_text(found)
    assert any(t.endswith("; see  edgeloop drift wine-rater") for t in troubles(found))


def test_a_picture_that_cannot_be_written_is_the_users_mistake(home: Path, capsys: Any, tmp_path: Path) -> None:
    watched(drifted=True)
    code, _, err = run(capsys, "drift", "wine-rater", "--plot", str(tmp_path / "x.txt"))
    assert code == 2
    assert f"--plot {tmp_path / 'x.txt'} does not end in .png: name a PNG file" in err
    (tmp_path / "file").write_text("no folder")
    code, _, err = run(capsys, "drift", "wine-rater", "--plot", str(tmp_path / "file" / "x.png"))
    assert code == 2
    assert f"--plot {tmp_path / 'file' / 'x.png'} cannot be written (" in err
