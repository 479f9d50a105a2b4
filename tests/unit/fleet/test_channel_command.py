"""``edgeloop channel``: keys and signatures by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.edge.releases.channel import Channel, read_root
from edgeloop.fleet.channel import NotApproved
from edgeloop.samples.releases import Release, release_key
from edgeloop.settings import load_settings


def run(capsys: pytest.CaptureFixture[str], home: Path, *words: str) -> tuple[int, Any]:
    with pytest.raises(SystemExit) as ended:
        main(["--home", str(home), "--json", "channel", *words])
    return int(str(ended.value.code or 0)), json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGELOOP_STORE", "EDGELOOP_KEYS"):
        monkeypatch.delenv(name, raising=False)


def test_keys_are_made_rotated_and_refreshed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, root = tmp_path / "home", tmp_path / "root.json"
    code, found = run(capsys, home, "init", "--root", str(root))
    assert code == 0 and found == {"root": str(root), "keys": str(home / "keys")}
    first = read_root(root)
    assert run(capsys, home, "init")[1]["root"] == str(home / "keys" / "root.json")
    assert run(capsys, home, "refresh") == (0, {"signed": []})
    assert run(capsys, home, "rotate", "timestamp") == (0, {"rotated": "timestamp"})
    run(capsys, home, "init", "--root", str(root))
    assert read_root(root) != first
    store = App(load_settings(home)).store
    assert Channel(lambda: store, first, tmp_path / "node", 0).wanted("rater") is None


def test_a_release_is_withdrawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = App(load_settings(tmp_path / "home"))
    release = Release(service="rater", version="1", run_id="r", dataset="d", layers=[])
    app.store.put(release_key("rater", release.digest), release.to_bytes())
    app.channel.approve("rater", release.digest)
    assert run(capsys, tmp_path / "home", "withdraw", "rater", release.digest) == (0, {"withdrawn": release.digest})
    with pytest.raises(NotApproved):
        app.channel.point("rater", 0, release.digest)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    run(capsys, home, "init")
    code, found = run(capsys, home, "rotate", "king")
    assert code == 2 and "no role 'king'" in found["error"]
    code, found = run(capsys, home, "init", "--root", str(tmp_path / "none" / "root.json"))
    assert code == 2 and "name another file" in found["error"]
    (home / "keys" / "root.pem").unlink()
    code, found = run(capsys, home, "rotate", "root")
    assert code == 2 and "root.pem" in found["error"] and "EDGELOOP_KEYS" in found["error"]


def test_keys_can_lie_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGELOOP_KEYS", str(tmp_path / "safe"))
    assert run(capsys, tmp_path / "home", "init")[1]["keys"] == str(tmp_path / "safe")
    assert (tmp_path / "safe" / "root.pem").is_file() and not (tmp_path / "home" / "keys").exists()
