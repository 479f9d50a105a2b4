"""Store URLs: what is refused, what is never shown, and what the environment adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.clients.objects import open_store
from edgeloop.errors import BadInput
from tests.contract.stores import ENVIRON


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        (" s3://bucket", "spaces"),
        ("gs://bucket", "neither"),
        ("http://host/bucket", "neither"),
        ("file://host/dir", "local directory"),
        ("s3://", "s3://bucket"),
        ("s3://Bad_Bucket", "s3://bucket"),
        ("s3://bucket?endpoint=127.0.0.1:9000", "endpoint"),
        ("s3://bucket?endpoint=http://h:1/path", "endpoint"),
        ("s3://bucket?colour=blue", "colour"),
        ("s3://bucket?timeout=soon", "soon"),
        ("s3://bucket?timeout=nan", "nan"),
        ("s3://bucket/a/../b", "part"),
    ],
)
def test_a_url_that_says_nothing_usable_is_refused(url: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as failed:
        open_store(url, environ=ENVIRON)
    assert "\n" not in str(failed.value)


def test_secrets_are_never_shown() -> None:
    with pytest.raises(BadInput) as failed:
        open_store("s3://key:hidden@bucket", environ=ENVIRON)
    assert "hidden" not in str(failed.value)
    store = open_store("s3://bucket/p", environ=ENVIRON | {"AWS_SESSION_TOKEN": "a-token"})
    shown = f"{store.url} {store!r} {store.table('t')!r} {vars(store)!r}"
    assert "a-secret" not in shown
    assert "a-token" not in shown
    assert store.table("t").storage_options["aws_session_token"] == "a-token"


@pytest.mark.parametrize("name", sorted(ENVIRON))
def test_missing_credentials_are_named(name: str) -> None:
    environ = {key: value for key, value in ENVIRON.items() if key != name}
    with pytest.raises(BadInput, match=name):
        open_store("s3://bucket", environ=environ)


def test_a_file_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        open_store(str(tmp_path / "file"))
    with pytest.raises(BadInput, match="cannot be created"):
        open_store(str(tmp_path / "file" / "below"))


def test_plain_http_needs_an_http_endpoint() -> None:
    def allowed(url: str) -> str:
        return open_store(url, environ=ENVIRON).table("t").storage_options["allow_http"]

    assert allowed("s3://bucket?endpoint=http://127.0.0.1:1") == "true"
    assert allowed("s3://bucket?endpoint=https://127.0.0.1:1") == allowed("s3://bucket") == "false"
