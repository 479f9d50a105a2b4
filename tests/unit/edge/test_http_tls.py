"""HTTPS, and callers that are known by a certificate."""

from __future__ import annotations

import http.client
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgeloop.edge.http import UnusableTls, server_config
from edgeloop.edge.http.access import Access, Caller, TlsFiles
from edgeloop.edge.http.server import common_name
from tests.unit.edge.asking import PREDICT, MakeWeb, Web
from tests.unit.edge.fakes import SERVICE
from tests.unit.edge.serving import LOOPS, ROW, ask, serving


class Authority:
    """A certificate authority of its own, and what it signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._sign(self.subject, self.key, authority=True))

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool = False) -> bytes:
        at = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        certificate = (
            x509.CertificateBuilder(self.subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(at - timedelta(hours=1))
            .not_valid_after(at + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(names, critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, *names: str, password: bytes | None = None) -> tuple[Path, Path]:
        """Returns certificate and key; each name is a common name of the subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n) for n in names])
        stem = self.folder / f"{self.path.stem}-{'-'.join(names)}"
        cert_path, key_path = stem.with_suffix(".crt"), stem.with_suffix(".key")
        cert_path.write_bytes(self._sign(subject, key))
        secret = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
        return cert_path, key_path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "fleet")


def calling(port: int, ca: Path, pair: tuple[Path, Path] | None = None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(ca))
    if pair:
        context.load_cert_chain(*pair)
    return http.client.HTTPSConnection("localhost", port, context=context, timeout=20)


CALLERS = [
    Caller(name="gate", role="client", certificate="gate"),
    Caller(name="ann", role="admin", certificate="ann"),
    Caller(name="eye", role="client", token_sha256="1eff2fe4f3ae1c0c0e56a4aebdd2d24c45ef3b1dd1e0ce1b1a5b5d1a0e3f1111"),
]
LOAD = f"/v2/repository/models/{SERVICE}/load"


@pytest.mark.parametrize("loop", LOOPS)
def test_a_client_certificate_says_who_calls(webs: MakeWeb, tmp_path: Path, authority: Authority, loop: Any) -> None:
    web = webs(access=Access(CALLERS), load=lambda _: None)
    cert, key = authority.issue("node")
    with serving(web, TlsFiles(cert=cert, key=key, client_ca=authority.path), loop) as port:

        def status(path: str, pair: tuple[Path, Path] | None) -> int:
            connection = calling(port, authority.path, pair)
            try:
                return ask(connection, path, ROW if path == PREDICT else b"")[0]
            finally:
                connection.close()

        gate, ann = authority.issue("gate"), authority.issue("ann")
        assert [status(PREDICT, p) for p in (None, gate, ann)] == [401, 200, 200]
        assert [status(LOAD, p) for p in (None, gate, ann)] == [401, 403, 200]
        assert status(PREDICT, authority.issue("stranger")) == 401
        assert status(PREDICT, authority.issue("gate", "ann")) == 401  # which of the two is it?
        impostor = Authority(tmp_path, "other").issue("ann")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            status(LOAD, impostor)


def test_a_certificate_says_nothing_where_nobody_asks_for_it(webs: MakeWeb, authority: Authority) -> None:
    web = webs(access=Access(CALLERS[2:]))
    cert, key = authority.issue("node")
    with serving(web, TlsFiles(cert=cert, key=key)) as port:
        connection = calling(port, authority.path, authority.issue("ann"))
        assert ask(connection, PREDICT, ROW)[0] == 401
        assert ask(connection, "/healthz")[0] == 200
        connection.close()


def test_tls_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority, web: Web) -> None:
    cert, key = authority.issue("node")
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    locked = authority.issue("locked", password=b"secret")
    for files in (
        TlsFiles(cert=tmp_path / "none.crt", key=key),
        TlsFiles(cert=junk, key=key),
        TlsFiles(cert=cert, key=authority.issue("else")[1]),
        TlsFiles(cert=cert, key=key, client_ca=junk),
        TlsFiles(cert=locked[0], key=locked[1]),
    ):
        with pytest.raises(UnusableTls, match=r"mend tls in node\.yaml") as caught:
            server_config(web.app, files)
        assert str(files.cert) in str(caught.value) and "\n" not in str(caught.value)


def test_callers_known_by_certificates_need_an_authority(webs: MakeWeb, authority: Authority) -> None:
    cert, key = authority.issue("node")
    web = webs(access=Access(CALLERS))
    for files in (None, TlsFiles(cert=cert, key=key)):
        with pytest.raises(UnusableTls, match=r"set tls\.client_ca"):
            server_config(web.app, files)


@pytest.mark.parametrize("given", [None, {}, {"subject": ()}, {"subject": ((("organizationName", "x"),),)}])
def test_without_one_common_name_there_is_none(given: Any) -> None:
    assert common_name(given) is None
