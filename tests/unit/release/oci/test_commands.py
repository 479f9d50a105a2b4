"""``edgeloop release push | export | images``: what they print, what they leave behind, and how they refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeloop.bootstrap import App
from edgeloop.cli import main
from edgeloop.release.images import Images
from edgeloop.release.oci.layout import Layout
from edgeloop.samples.releases import blob_key, release_key
from edgeloop.settings import load_settings
from tests.servers.registry import DockerRegistry, docker_registry
from tests.unit.release.oci.make import Blobs, base_layout, photo_release


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """A home in which versions 1 and 2 of wine-rater are released."""
    monkeypatch.setenv("EDGELOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none.json"))
    app = App(load_settings())
    for version in ("1", "2"):
        blobs = Blobs()
        release = photo_release(blobs, version, f"head {version}".encode()).model_copy(update={"service": "wine-rater"})
        for name, data in blobs.held.items():
            app.store.create(blob_key(name), data)
        app.store.create(release_key("wine-rater", release.digest), release.to_bytes())
        app.fleet.add_release("wine-rater", version, release.digest)
        app.channel.approve("wine-rater", release.digest)
    yield app
    app.fleet.close()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["release", *words])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def said(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    value: dict[str, Any] = json.loads(out)
    return value


def test_what_was_refused_is_not_pushed_unasked(
    app: App, docker: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, refused), *_ = app.fleet.released("wine-rater")
    app.channel.withdraw("wine-rater", refused)
    assert said(capsys, "push", "wine-rater", f"{docker.name}/models/refused")["version"] == "1"


def test_a_push_sends_what_is_new_and_is_remembered(
    app: App, docker: DockerRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    image = f"{docker.name}/models/wine"
    first = said(capsys, "push", "wine-rater", image, "--version", "1")
    assert (first["version"], first["kind"], first["tag"]) == ("1", "model", "1-model")
    assert first["reference"] == f"{image}@{first['digest']}"
    assert first["uri"] == f"oci+native://{first['reference']}"
    assert first["arches"] == ["amd64", "arm64"]
    assert first["sent"] > 4
    newest = said(capsys, "push", "wine-rater", f"{image}:stable")
    assert (newest["version"], newest["tag"], newest["sent"]) == ("2", "stable", 4)
    code, out, _ = run(capsys, "push", "wine-rater", f"{image}:stable")
    assert code == 0
    assert out.startswith(f"{newest['reference']}: 0 blobs sent (0 bytes), 0 mounted, ")
    assert f"storageUri: {newest['uri']}" in out
    images = Images(app.fleet.database)
    assert images.of(newest["release"]) == {"model": newest["reference"]}
    assert [r["release"] for r in images.pushed("wine-rater")] == [newest["release"], first["release"]]
    code, out, _ = run(capsys, "images", "wine-rater")
    assert newest["reference"] in out.splitlines()[1]
    assert len(said(capsys, "images", "wine-rater")["images"]) == 2


def test_a_predictor_stands_on_a_base_from_a_folder_or_a_registry(
    app: App, docker: DockerRegistry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base = base_layout(tmp_path / "base")
    image = f"{docker.name}/predictors/wine"
    options = ("--kind", "predictor", "--base", f"oci:{tmp_path / 'base'}@{base.digest}")
    first = said(capsys, "push", "wine-rater", image, *options)
    assert first["uri"] is None
    again = said(capsys, "push", "wine-rater", image, "--kind", "predictor", "--base", first["reference"])
    assert again["digest"] != first["digest"]
    one = said(capsys, "push", "wine-rater", image, *options, "--arch", "arm64")
    assert one["arches"] == ["arm64"]
    said(capsys, "push", "wine-rater", image, *options)
    assert Images(app.fleet.database).of(first["release"]) == {"predictor": first["reference"]}, "pushed last"


def test_an_export_is_what_a_push_would_be(
    app: App, docker: DockerRegistry, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pushed = said(capsys, "push", "wine-rater", f"{docker.name}/exported")
    written = said(capsys, "export", "wine-rater", str(tmp_path / "out"))
    assert (written["digest"], written["written"]) == (pushed["digest"], True)
    assert Layout(tmp_path / "out").manifest("", "2-model") is not None
    code, out, _ = run(capsys, "export", "wine-rater", str(tmp_path / "out"))
    assert (code, out) == (0, f"{tmp_path / 'out'} had oci:{tmp_path / 'out'}:2-model ({pushed['digest']})\n")


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["push", "nobody", "127.0.0.1:1/a"], "nobody"),
        (["push", "wine-rater", "127.0.0.1:1/a", "--version", "9"], "version 9 of wine-rater was never released"),
        (["push", "digits", "127.0.0.1:1/a"], "digits was never released: set the alias champion"),
        (["push", "wine-rater", "models/a"], "'models/a' names no image"),
        (["push", "wine-rater", f"127.0.0.1:1/a@{DIGEST}"], "push to 127.0.0.1:1/a:TAG"),
        (["push", "wine-rater", "127.0.0.1:1/a", "--kind", "predictor"], "give --base IMAGE@sha256:…"),
        (["push", "wine-rater", "127.0.0.1:1/a", "--kind", "savedmodel"], "has no SavedModel"),
        (
            ["push", "wine-rater", "127.0.0.1:1/a", "--base", "127.0.0.1:1/base:1"],
            "has no digest",
        ),
        (["push", "wine-rater", "127.0.0.1:1/a", "--base", "oci:folder"], "name it as oci:FOLDER@sha256:…"),
        (["push", "wine-rater", "127.0.0.1:1/a", "--base", f"oci:none@{DIGEST}"], "oci:none has no image"),
        (["export", "wine-rater", "edgeloop/cli.py"], "edgeloop/cli.py is there and holds something else"),
        (["images", "nobody"], "nobody"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    app: App, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("edgeloop: ")
    assert err.count("\n") == 1
    assert message in err
    assert Images(app.fleet.database).pushed("wine-rater") == []


def test_a_registry_that_is_away_is_no_mistake(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "push", "wine-rater", "127.0.0.1:1/a", "--json")
    assert code == 1
    assert "edgeloop: image registry 127.0.0.1:1 does not answer" in err
    assert Images(app.fleet.database).pushed("wine-rater") == []


def test_a_damaged_store_is_noticed_before_anything_is_sent(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    release = app.fleet.release_of("wine-rater", "2")
    assert release
    app.store.put(release_key("wine-rater", release), b"{}")
    code, _, err = run(capsys, "push", "wine-rater", "127.0.0.1:1/a")
    assert code == 2
    assert f"release {release}: its bytes have digest" in err
    app.store.delete(release_key("wine-rater", release))
    code, _, err = run(capsys, "push", "wine-rater", "127.0.0.1:1/a")
    assert code == 2
    assert f"release {release} of wine-rater is not in" in err
