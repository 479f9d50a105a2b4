"""Credentials are found where others write them, for the host that they are for, and shown to nobody."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from edgeloop.clients.oci_auth import (
    Credentials,
    KeptElsewhere,
    MalformedAuthFile,
    auth_file,
    read_challenge,
    read_credentials,
)


def stored(folder: Path, value: Any) -> Path:
    path = folder / "config.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def login(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:pass:word".encode()).decode()}


def test_the_file_is_where_others_keep_it(tmp_path: Path) -> None:
    assert auth_file({"REGISTRY_AUTH_FILE": "/a/b.json", "DOCKER_CONFIG": "/c"}) == Path("/a/b.json")
    assert auth_file({"DOCKER_CONFIG": "/c"}) == Path("/c/config.json")
    assert auth_file({}) == Path.home() / ".docker" / "config.json"
    assert read_credentials(tmp_path / "none.json", "r.example", "a") is None


def test_the_nearest_login_is_taken(tmp_path: Path) -> None:
    names = ["r.example", "r.example/team", "r.example/team/rater", "https://s.example", "https://index.docker.io/v1/"]
    path = stored(tmp_path, {"auths": {name: login(name) for name in names}})

    def user(registry: str, repository: str) -> str | None:
        found = read_credentials(path, registry, repository)
        return found.user if found else None

    # The user ends at the first colon.
    assert user("r.example", "other") == "r.example"
    assert user("r.example", "team/x") == "r.example/team"
    assert user("r.example", "team/rater") == "r.example/team/rater"
    assert user("s.example", "x") == "https"
    assert user("docker.io", "x") == "https"
    assert user("t.example", "x") is None
    assert user("example", "x") is None


def test_other_forms_of_a_login(tmp_path: Path) -> None:
    path = stored(
        tmp_path,
        {"auths": {"a.example": {"username": "u", "password": "p"}, "b.example": {**login("u"), "identitytoken": "t"}}},
    )
    assert read_credentials(path, "a.example", "x") == Credentials("u", "p")
    assert read_credentials(path, "b.example", "x") == Credentials("u", "pass:word", "t")


@pytest.mark.parametrize(
    "value",
    [
        "secret-text {",
        "[]",
        '{"auths": {"r.example": {"auth": "secret?text"}}}',
        '{"auths": {"r.example": 5}}',
    ],
)
def test_a_broken_file_is_named_and_not_quoted(tmp_path: Path, value: str) -> None:
    path = stored(tmp_path, value)
    with pytest.raises(MalformedAuthFile, match="log in again") as failed:
        read_credentials(path, "r.example", "x")
    assert str(path) in str(failed.value)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    "value", [{"credHelpers": {"r.example": "ecr"}}, {"auths": {"r.example": {}}, "credsStore": "desktop"}]
)
def test_a_helper_that_has_them_is_said(tmp_path: Path, value: Any) -> None:
    path = stored(tmp_path, value)
    with pytest.raises(KeptElsewhere, match=r"r\.example are with a helper.*REGISTRY_AUTH_FILE"):
        read_credentials(path, "r.example", "x")
    assert read_credentials(path, "other.example", "x") is None


def test_they_stand_in_no_repr() -> None:
    text = repr(Credentials("jane", "word", "token"))
    assert not [word for word in ("jane", "word", "token") if f"{word}'" in text]


def test_challenges_are_read() -> None:
    found = read_challenge('Bearer realm="https://t.example/x?y=1",service="r",scope="repository:a:pull,push"')
    assert found is not None
    assert found.scheme == "bearer"
    assert found.parameters["realm"] == "https://t.example/x?y=1"
    assert found.parameters["scope"] == "repository:a:pull,push"
    basic = read_challenge('Basic realm="tests"')
    assert basic is not None
    assert basic.scheme == "basic"
    assert read_challenge("Negotiate") is None
    assert read_challenge("") is None
