"""How a registry is spoken to that asks for a token, is busy, sends us elsewhere, or does not tell the truth."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from edgeloop.clients.oci_registry import HttpRegistry
from edgeloop.clients.oci_types import (
    MANIFEST,
    Bytes,
    DigestDiffers,
    PlainHttp,
    RegistryDenied,
    RegistryRefused,
    RegistryUnavailable,
)
from edgeloop.errors import EdgeloopError
from edgeloop.samples.records import digest
from tests.servers.scripted_registry import Answer, Asked, Script, Scripted, scripted

REPOSITORY = "models/rater"
DATA = b"a layer"
NAME = digest(DATA)
USER, PASSWORD = "jane-doe", "s3cret-word"


def client(server: Scripted, auth: Path | None = None) -> HttpRegistry:
    return HttpRegistry(server.name, auth or Path("no-such-file"), timeout=30, pause=0.01)


def logins(folder: Path, server: Scripted, **more: str) -> Path:
    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    path = folder / "config.json"
    path.write_text(json.dumps({"auths": {server.name: {"auth": secret, **more}}}))
    return path


def always(answer: Answer) -> Script:
    return lambda asked: answer


def errors(code: str, message: str = "no") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


class TokenRegistry:
    """Asks for a bearer token; each one is good for ``uses`` requests."""

    def __init__(self, uses: int = 1000) -> None:
        self.uses = uses
        self.given = 0
        self.left: dict[str, int] = {}

    def __call__(self, asked: Asked) -> Answer:
        if asked.path.startswith("/token"):
            self.given += 1
            self.left[f"Bearer t{self.given}"] = self.uses
            return Answer(200, body=json.dumps({"token": f"t{self.given}", "expires_in": 60}).encode())
        held = asked.headers.get("authorization", "")
        if self.left.get(held, 0) < 1:
            where = f'Bearer realm="/token",service="reg",scope="repository:{REPOSITORY}:pull,push"'
            return Answer(401, {"WWW-Authenticate": where}, errors("UNAUTHORIZED"))
        self.left[held] -= 1
        return Answer(200)


def test_a_token_is_asked_for_once_with_the_password_and_used_again(tmp_path: Path) -> None:
    with scripted(TokenRegistry()) as server, closing(client(server, logins(tmp_path, server))) as registry:
        assert registry.has_blob(REPOSITORY, NAME)
        assert registry.has_blob(REPOSITORY, NAME)
    (token,) = [one for one in server.asked if one.path.startswith("/token")]
    assert parse_qs(urlsplit(token.path).query) == {"service": ["reg"], "scope": [f"repository:{REPOSITORY}:pull,push"]}
    assert token.headers["authorization"] == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    heads = [one.headers.get("authorization") for one in server.of("HEAD")]
    assert heads == [None, "Bearer t1", "Bearer t1"]


def test_an_expired_token_is_renewed(tmp_path: Path) -> None:
    script = TokenRegistry(uses=1)
    with scripted(script) as server, closing(client(server, logins(tmp_path, server))) as registry:
        assert all(registry.has_blob(REPOSITORY, NAME) for _ in range(3))
    assert script.given == 3


def test_an_identity_token_is_exchanged(tmp_path: Path) -> None:
    auth = {"identitytoken": "id-1"}
    with scripted(TokenRegistry()) as server, closing(client(server, logins(tmp_path, server, **auth))) as registry:
        assert registry.has_blob(REPOSITORY, NAME)
    (token,) = server.of("POST")
    form = parse_qs(token.body.decode())
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["id-1"])
    assert "authorization" not in token.headers


def test_a_token_is_had_without_a_login_where_anyone_may(tmp_path: Path) -> None:
    with scripted(TokenRegistry()) as server, closing(client(server)) as registry:
        assert registry.has_blob(REPOSITORY, NAME)
    assert all("Basic" not in one.headers.get("authorization", "") for one in server.asked)


def test_a_password_never_travels_to_a_far_machine_in_plain_text(tmp_path: Path) -> None:
    where = 'Bearer realm="http://tokens.example/t",service="reg"'
    answer = Answer(401, {"WWW-Authenticate": where})
    with scripted(always(answer)) as server, closing(client(server, logins(tmp_path, server))) as registry:
        with pytest.raises(PlainHttp, match=r"tokens\.example over plain http.*--plain-http"):
            registry.has_blob(REPOSITORY, NAME)
        elsewhere = Answer(202, {"Location": "http://storage.example/u"})
        server.script = always(elsewhere)
        with pytest.raises(PlainHttp, match=r"storage\.example"):
            registry.upload(REPOSITORY, NAME, Bytes(DATA))


@pytest.mark.parametrize("secret", [USER, PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()])
@pytest.mark.parametrize(
    "answer",
    [
        Answer(401, {"WWW-Authenticate": 'Basic realm="r"'}),
        Answer(403, body=errors("DENIED", "requested access is denied")),
        Answer(500, body=b"<html>"),
        Answer(401),
    ],
)
def test_no_failure_shows_credentials(tmp_path: Path, answer: Answer, secret: str) -> None:
    with scripted(always(answer)) as server, closing(client(server, logins(tmp_path, server))) as registry:
        with pytest.raises(EdgeloopError) as failed:
            registry.upload(REPOSITORY, NAME, Bytes(DATA))
        assert secret not in str(failed.value)
        assert secret not in repr(vars(registry))
        assert "\n" not in str(failed.value)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (Answer(403, body=errors("DENIED", "not yours")), RegistryDenied, r"\(403 DENIED: not yours\): log in with"),
        (Answer(401), RegistryRefused, "answered 401 and not how to log in"),
        (Answer(404, body=errors("NAME_UNKNOWN")), RegistryRefused, "404.*is models/rater a repository there"),
        (Answer(413), RegistryRefused, "413.*raise the limit"),
        (Answer(429), RegistryUnavailable, "answered 429"),
        (Answer(500, body=b"oops"), RegistryUnavailable, "answered 500 to POST in models/rater: run again"),
        (Answer(503), RegistryUnavailable, "answered 503"),
        (Answer(202), RegistryRefused, "did not say where to upload to"),
        (Answer(200, body=b"<html>welcome</html>"), RegistryRefused, "did not say where to upload to"),
    ],
)
def test_a_refusal_is_one_line_with_the_next_step(answer: Answer, error: type[EdgeloopError], said: str) -> None:
    with scripted(always(answer)) as server, closing(client(server)) as registry:
        with pytest.raises(error, match=said) as failed:
            registry.upload(REPOSITORY, NAME, Bytes(DATA))
        assert server.name in str(failed.value)


def test_a_busy_registry_is_asked_again_and_not_for_ever() -> None:
    answers = [Answer(503), Answer(429), Answer(200)]
    with scripted(lambda asked: answers.pop(0)) as server, closing(client(server)) as registry:
        assert registry.has_blob(REPOSITORY, NAME)
        server.script = always(Answer(503))
        with pytest.raises(RegistryUnavailable, match="503"):
            registry.has_blob(REPOSITORY, NAME)
    assert len(server.of("HEAD")) == 6


def test_one_connection_is_enough() -> None:
    places: set[int] = set()

    def script(asked: Asked) -> Answer:
        places.add(asked.client)
        return Answer({"HEAD": 404, "POST": 202, "PUT": 201}[asked.method], {"Location": "/up"})

    with scripted(script) as server, closing(client(server)) as registry:
        for _ in range(3):
            assert not registry.has_blob(REPOSITORY, NAME)
            registry.upload(REPOSITORY, NAME, Bytes(DATA))
    assert len(places) == 1


def upload_script(place: Callable[[], str], **put: Any) -> Script:
    def script(asked: Asked) -> Answer:
        if asked.method == "PUT":
            return Answer(201, **put)
        return Answer(202, {"Location": place()})

    return script


def test_an_upload_follows_the_address_that_it_is_given_on_our_scheme_and_port() -> None:
    script = upload_script(lambda: "http://127.0.0.1:1/v2/up?_state=a%3D%3D")
    with scripted(script) as server, closing(client(server)) as registry:
        registry.upload(REPOSITORY, NAME, Bytes(DATA))
    (put,) = server.of("PUT")
    assert put.body == DATA
    assert parse_qs(urlsplit(put.path).query) == {"_state": ["a=="], "digest": [NAME]}


def test_credentials_stay_with_the_host_that_they_are_for(tmp_path: Path) -> None:
    with scripted(always(Answer(201))) as storage:

        def script(asked: Asked) -> Answer:
            if "authorization" not in asked.headers:
                return Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})
            place = {"Location": f"http://localhost:{storage.port}/there"}
            return Answer(307, place) if asked.method == "GET" else Answer(202, place)

        with scripted(script) as server, closing(client(server, logins(tmp_path, server))) as registry:
            registry.upload(REPOSITORY, NAME, Bytes(DATA))
            storage.script = always(Answer(200, body=DATA))
            assert b"".join(registry.blob(REPOSITORY, NAME)) == DATA
    assert [one.method for one in storage.asked if one.method != "HEAD"] == ["PUT", "GET"]
    assert all("authorization" not in one.headers for one in storage.asked)


def test_a_registry_elsewhere_does_not_name_a_port_of_this_machine() -> None:
    """Whoever listens there would get the login."""
    with closing(HttpRegistry("registry.example.com", Path("none"))) as registry:
        for place in ("http://localhost:9/token", "http://127.0.0.1:9/token", "http://tokens.example/t"):
            with pytest.raises(PlainHttp, match=r"sends us to .* over plain http"):
                registry._http._resolve(place)
        assert registry._http._resolve("https://tokens.example/t").host == "tokens.example"


def test_a_place_that_we_are_sent_to_cannot_ask_for_credentials(tmp_path: Path) -> None:
    with scripted(always(Answer(401))) as storage, scripted(always(Answer(401))) as server:
        realm = f'Bearer realm="http://localhost:{storage.port}/token"'
        storage.script = always(Answer(401, {"WWW-Authenticate": realm}))
        server.script = always(Answer(307, {"Location": f"http://localhost:{storage.port}/there"}))
        with closing(client(server, logins(tmp_path, server))) as registry, pytest.raises(RegistryDenied):
            list(registry.blob(REPOSITORY, NAME))
    assert [one.path for one in storage.of("GET")] == ["/there"]
    assert all("authorization" not in one.headers for one in storage.asked)


def test_a_large_blob_goes_in_pieces() -> None:
    places = iter(range(100))
    script = upload_script(lambda: f"/up/{next(places)}")
    with scripted(script) as server, closing(HttpRegistry(server.name, Path("none"), piece=3)) as registry:
        registry.upload(REPOSITORY, NAME, Bytes(DATA))
    patches = server.of("PATCH")
    assert [(p.path, p.body, p.headers["content-range"]) for p in patches] == [
        ("/up/0", b"a l", "0-2"),
        ("/up/1", b"aye", "3-5"),
        ("/up/2", b"r", "6-6"),
    ]
    (put,) = server.of("PUT")
    assert (put.path, put.body) == (f"/up/3?digest={NAME}", b"")


def test_the_digest_that_a_registry_says_is_compared() -> None:
    lie = {"Docker-Content-Digest": digest(b"something else")}
    with scripted(upload_script(lambda: "/up", headers=lie)) as server, closing(client(server)) as registry:
        with pytest.raises(DigestDiffers, match=f"says {digest(b'something else')} of blob in models/rater"):
            registry.upload(REPOSITORY, NAME, Bytes(DATA))
        with pytest.raises(DigestDiffers, match="of manifest v1 in models/rater"):
            registry.put_manifest(REPOSITORY, "v1", DATA, MANIFEST)


def test_a_registry_that_says_no_digest_is_asked_what_it_keeps() -> None:
    kept = [DATA, b"something else"]

    def script(asked: Asked) -> Answer:
        return Answer(201) if asked.method == "PUT" else Answer(200, {"Content-Type": MANIFEST}, kept.pop(0))

    with scripted(script) as server, closing(client(server)) as registry:
        assert registry.put_manifest(REPOSITORY, "v1", DATA, MANIFEST) == NAME
        with pytest.raises(DigestDiffers, match="keeps something else as v1"):
            registry.put_manifest(REPOSITORY, "v1", DATA, MANIFEST)


def test_bytes_that_are_not_the_ones_named_are_never_taken() -> None:
    with scripted(always(Answer(200, body=b"b layer"))) as server, closing(client(server)) as registry:
        with pytest.raises(DigestDiffers, match=f"for {NAME}"):
            list(registry.blob(REPOSITORY, NAME))
        with pytest.raises(DigestDiffers, match=f"for manifest {NAME}"):
            registry.manifest(REPOSITORY, NAME)


def test_a_transfer_that_is_cut_off_is_no_end() -> None:
    cut = Answer(200, {"Content-Length": "1000"}, DATA, cut=True)
    with scripted(always(cut)) as server, closing(client(server)) as registry:
        with pytest.raises(RegistryUnavailable, match=server.name):
            list(registry.blob(REPOSITORY, NAME))
        with pytest.raises(RegistryUnavailable, match=server.name):
            registry.manifest(REPOSITORY, "v1")


def test_a_manifest_without_end_is_not_read() -> None:
    much = always(Answer(200, body=b"x" * (5 << 20)))
    with (
        scripted(much) as server,
        closing(client(server)) as registry,
        pytest.raises(RegistryRefused, match="4 MiB"),
    ):
        registry.manifest(REPOSITORY, "v1")


def test_a_mount_that_is_refused_becomes_an_upload_and_leaves_none_open() -> None:
    def script(asked: Asked) -> Answer:
        return Answer(202, {"Location": "/up/1"}) if asked.method == "POST" else Answer(204)

    with scripted(script) as server, closing(client(server)) as registry:
        assert not registry.mount(REPOSITORY, NAME, "runtime")
        assert [one.path for one in server.of("DELETE")] == ["/up/1"]
        server.script = always(Answer(403))
        assert not registry.mount(REPOSITORY, NAME, "secret")


def test_a_far_registry_is_never_spoken_to_in_plain_text_unasked() -> None:
    with closing(HttpRegistry("registry.example:5000", Path("none"))) as far:
        assert str(far._http.base) == "https://registry.example:5000"
    with closing(HttpRegistry("registry.example:5000", Path("none"), plain_http=True)) as plain:
        assert str(plain._http.base) == "http://registry.example:5000"
    with closing(HttpRegistry("docker.io", Path("none"))) as hub:
        assert str(hub._http.base) == "https://registry-1.docker.io"
