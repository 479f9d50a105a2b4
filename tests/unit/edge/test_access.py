"""Who may ask a node what, and what is said to those who may not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.edge.http.access import Access, Caller, MalformedAccess, load_access
from tests.unit.edge.asking import INFER, PREDICT, MakeWeb, Web
from tests.unit.edge.fakes import SERVICE

LOAD = f"/v2/repository/models/{SERVICE}/load"


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def access() -> Access:
    return Access(
        [
            Caller(name="camera", role="client", token_sha256=sha256("eye")),
            Caller(name="ann", role="admin", token_sha256=sha256("key").upper()),
            Caller(name="gate", role="client", certificate="gate.example"),
            Caller(name="ben", role="admin", certificate="ben.example"),
        ]
    )


@pytest.fixture
def loaded() -> list[str]:
    """What was loaded."""
    return []


@pytest.fixture
def web(webs: MakeWeb, loaded: list[str]) -> Web:
    return webs(access=access(), load=loaded.append, unload=lambda _: None)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"])
def test_health_is_open(web: Web, path: str) -> None:
    assert web.ask(path).status == 200
    assert web.ask(path, headers=bearer("wrong")).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((p, None) for p in ("/metrics", "/v1/models", "/v2", f"/v2/models/{SERVICE}", f"/v2/models/{SERVICE}/ready")),
        *((p, {}) for p in (PREDICT, INFER, f"/v1/models/{SERVICE}/feedback", "/v2/repository/index", LOAD)),
        *((p, None) for p in ("/nowhere", PREDICT)),
    ],
)
def test_strangers_get_nothing_else(web: Web, path: str, body: object) -> None:
    for headers in ({}, bearer("wrong"), bearer(""), {"Authorization": "Basic eye"}, {"Authorization": "eye"}):
        response = web.ask(path, body, headers)
        assert response.status == 401 and "does not know you" in response.error
        assert response.headers[b"www-authenticate"] == b"Bearer"
    assert web.site.work.refused == {"unauthenticated": 5}


def test_a_token_lets_in(web: Web) -> None:
    for token in ("eye", "key"):
        assert web.answer(PREDICT, {"instances": [[0.5, 1]]}, bearer(token))["predictions"] == ["yes"]
    assert web.ask("/metrics", headers={"Authorization": "bearer  eye "}).status == 200


def test_a_certificate_lets_in_and_a_wrong_token_beside_it_does_not(web: Web) -> None:
    assert web.ask("/metrics", peer="gate.example").status == 200
    assert web.ask("/metrics", peer="other.example").status == 401
    assert web.ask("/metrics", headers=bearer("wrong"), peer="gate.example").status == 401


def test_only_administrators_load(web: Web, loaded: list[str]) -> None:
    for headers, peer in ((bearer("eye"), None), ({}, "gate.example")):
        response = web.ask(LOAD, b"", headers, peer=peer)
        assert response.status == 403 and "for administrators" in response.error
    assert loaded == []
    for headers, peer in ((bearer("key"), None), ({}, "ben.example")):
        assert web.ask(LOAD, b"", headers, peer=peer).status == 200
    assert loaded == [SERVICE, SERVICE]
    assert web.ask("/v2/repository/models/other/unload", b"", bearer("key")).status == 404


def test_a_node_without_a_way_to_load_says_so(webs: MakeWeb) -> None:
    web = webs(access=access())
    assert "roll out a release instead" in web.ask(LOAD, b"", bearer("key")).error


@given(st.binary(max_size=80))
def test_only_the_token_itself_is_known(header: bytes) -> None:
    found = access().caller(header, None)
    scheme, _, token = header.partition(b" ")
    expected = {b"eye": "camera", b"key": "ann"}.get(token.strip()) if scheme.lower() == b"bearer" else None
    assert (found.name if found else None) == expected


def test_the_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "access.yaml"
    path.write_text(
        f"- name: camera\n  role: client\n  token_sha256: {sha256('eye')}\n"
        "- name: ben\n  role: admin\n  certificate: ben.example\n"
    )
    read = load_access(path)
    camera, ben = read.caller(b"Bearer eye", None), read.caller(None, "ben.example")
    assert camera and (camera.name, camera.role) == ("camera", "client")
    assert ben and (ben.name, ben.role) == ("ben", "admin") and read.needs_certificates


GOOD = f"- {{name: a, role: client, token_sha256: {sha256('eye')}}}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", ":1: access is a list"),
        ("a: b", ":1: access is a list"),
        ("- [", ":1: not YAML"),
        ("\n[]", ":1: field access: List should have at least 1 item"),
        ("- 7", ":1: field 0: "),
        (GOOD + "- name: b\n  role: root\n  certificate: b", ":3: field 1.role: Input should be 'client' or 'admin'"),
        (GOOD + "- name: b\n  role: admin", ":2: field 1: a caller needs one of token_sha256 and certificate"),
        (GOOD + "- name: b\n  role: admin\n  certificate: x\n  token_sha256: " + "a" * 64, ":2: field 1: a caller"),
        ("- name: b\n  role: admin\n  token_sha256: eye", ":3: field 0.token_sha256: String should match"),
        ("- name: b\n  role: admin\n  token: eye", ":3: field 0.token: Extra inputs are not permitted"),
        ("- role: admin\n  certificate: x", ":1: field 0.name: Field required"),
        (GOOD + GOOD.replace("a,", "b,"), ":2: field 1.token_sha256: is that of entry 0"),
        (GOOD + "- {name: a, role: admin, certificate: x}", ":2: field 1.name: is that of entry 0"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_named_with_line_and_field(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "access.yaml"
    path.write_text(text)
    with pytest.raises(MalformedAccess) as caught:
        load_access(path)
    message = str(caught.value)
    assert message.startswith(f"{path}{says}") and "\n" not in message
    assert "eye" not in message.removeprefix(str(path))


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "access.yaml"
    with pytest.raises(MalformedAccess, match="cannot be read"):
        load_access(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MalformedAccess, match="cannot be read"):
        load_access(path)
    path.write_bytes(b"- \x01")
    with pytest.raises(MalformedAccess, match="not YAML"):
        load_access(path)
