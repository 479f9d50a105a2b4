"""A name means one image in one registry, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.clients.oci_reference import MalformedReference, Reference, UnpinnedBase, is_loopback, parse
from edgeloop.samples.records import digest

NAME = digest(b"image")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("registry.example/models/rater:7", Reference("registry.example", "models/rater", "7")),
        ("127.0.0.1:5000/rater", Reference("127.0.0.1:5000", "rater")),
        ("localhost/rater:v1", Reference("localhost", "rater", "v1")),
        ("[::1]:5000/rater:v1", Reference("[::1]:5000", "rater", "v1")),
        (f"ghcr.io/a/b__c-d.e:T_1@{NAME}", Reference("ghcr.io", "a/b__c-d.e", "T_1", NAME)),
        (f"docker://ghcr.io/a@{NAME}", Reference("ghcr.io", "a", None, NAME)),
    ],
)
def test_an_image_is_named(text: str, wanted: Reference) -> None:
    assert parse(text) == wanted
    assert parse(str(wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "", "rater", "rater:7", "models/rater:7", "registry.example/", "registry.example/Rater",
        "registry.example/a//b", "registry.example/a:", "registry.example/a@sha256:12", "registry.example/a@md5:12",
        "registry.example:x/a", "https://registry.example/a", "registry.example/a/../b", "registry.example/a b",
        f"registry.example/{'a' * 250}", "registry.example/a\n", "oci:folder", "-x.example/a",
    ],
)  # fmt: skip
def test_anything_else_is_refused_on_one_line(text: str) -> None:
    with pytest.raises(MalformedReference, match=r"names no image: write REGISTRY/REPOSITORY\[:TAG\]") as failed:
        parse(text)
    assert "\n" not in str(failed.value)


def test_a_password_in_a_name_is_not_repeated() -> None:
    for text in ("jane:secret@registry.example/a", "https://jane:secret@registry.example/a"):
        with pytest.raises(MalformedReference) as failed:
            parse(text)
        assert "secret" not in str(failed.value)


_PART = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,5})?", fullmatch=True)
_HOST = st.from_regex(r"[a-z]{1,8}\.[a-z]{2,5}(:[0-9]{1,5})?", fullmatch=True)
_TAG = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(_HOST, st.lists(_PART, min_size=1, max_size=4), _TAG, st.none() | st.binary().map(digest))
def test_what_is_written_is_read(host: str, parts: list[str], tag: str | None, name: str | None) -> None:
    made = Reference(host, "/".join(parts), tag, name)
    assert parse(str(made)) == made


def test_a_base_has_a_digest_and_a_target_has_none() -> None:
    assert parse(f"registry.example/a:1@{NAME}").pinned() == NAME
    with pytest.raises(UnpinnedBase, match=r"base registry.example/a:1 has no digest.*registry.example/a@sha256:…"):
        parse("registry.example/a:1").pinned()
    with pytest.raises(MalformedReference, match=r"push to registry\.example/a:TAG"):
        parse(f"registry.example/a@{NAME}").without_digest()
    assert parse("registry.example/a:1").without_digest().tag == "1"


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]", "[::1]:5000"])
def test_this_machine_is_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example", "10.0.0.1:5000", "registry.example:5000", "[fe80::1]:5000"])
def test_another_machine_is_not_this_one(host: str) -> None:
    assert not is_loopback(host)
