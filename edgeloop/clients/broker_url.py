"""Where a broker listens and how it is believed, read from one URL, because a setting that is one line is set right.

TLS is never half on: with ``mqtts://`` the certificate chain and the host name are always checked.
"""

from __future__ import annotations

import logging
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from edgeloop.clients.broker_types import BrokerRefused, BrokerUnavailable, MalformedBrokerUrl, UntrustedBroker

_log = logging.getLogger(__name__)
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_FORM = "write mqtt://[user:password@]host:port or mqtts://[user:password@]host:port[?ca=FILE&cert=FILE&key=FILE]"


@dataclass(frozen=True)
class Tls:
    """The files of a TLS connection; without ``ca`` the system's authorities are believed."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A context that wants TLS 1.2 or newer and checks chain and host name.

        Raises:
            MalformedBrokerUrl: a file is missing, unreadable, encrypted, no PEM, or key and certificate differ.
        """
        for name, file in (("ca", self.ca), ("cert", self.cert), ("key", self.key)):
            _check_readable(name, file)
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.ca)
        except ssl.SSLError as error:
            raise MalformedBrokerUrl(f"ca {self.ca} holds no certificate: name a PEM file") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            self._load_pair(context, self.cert)
        return context

    def _load_pair(self, context: ssl.SSLContext, cert: Path) -> None:
        try:
            context.load_cert_chain(cert, self.key, password=_no_passphrase)
        except _Encrypted as error:
            raise MalformedBrokerUrl(f"key {self.key or cert} is encrypted: name a key without passphrase") from error
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                why = f"key {self.key} does not belong to cert {cert}: name the key of this certificate"
            else:
                why = f"cert {cert} and key {self.key or cert} are no PEM pair: name a certificate and its key"
            raise MalformedBrokerUrl(why) from error


class RenewingContext(ssl.SSLContext):
    """Reads the files again for every connection: certificates are replaced under a running process."""

    _tls: Tls
    _good: ssl.SSLContext

    @classmethod
    def of(cls, tls: Tls) -> RenewingContext:
        """Raises MalformedBrokerUrl as :meth:`Tls.context` does; later a file that cannot be used is only logged."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made._tls, made._good = tls, tls.context()
        return made

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As the newest files say."""
        try:
            self._good = self._tls.context()
        except MalformedBrokerUrl as error:
            _log.warning("the certificates were not read again", extra={"error": str(error)})
        # Shaking hands here closes the socket when it fails; paho leaves it open.
        return self._good.wrap_socket(*arguments, **options | {"do_handshake_on_connect": True})


class _Encrypted(Exception):
    """Asked for a passphrase; without this OpenSSL asks the terminal."""


def _no_passphrase() -> NoReturn:
    raise _Encrypted


def _check_readable(name: str, file: Path | None) -> None:
    if file is None:
        return
    try:
        with file.open("rb") as opened:
            opened.read(1)
    except OSError as error:
        raise MalformedBrokerUrl(f"{name} {file} cannot be read ({error.strerror}): name a readable file") from error


@dataclass(frozen=True)
class Address:
    """Where a broker listens. Neither ``str`` nor ``repr`` show the password."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def unavailable(self, why: str) -> BrokerUnavailable:
        """The error that names this broker and the next step."""
        return BrokerUnavailable(f"broker {self} does not answer ({why}): start it, or set EDGELOOP_BROKER")

    def refused(self, why: str) -> BrokerRefused:
        """The error of a connection that the broker does not allow."""
        return BrokerRefused(f"broker {self} refuses the connection ({why}): check user, password and its access rules")

    def failed(self, error: OSError) -> BrokerUnavailable:
        """The error of a connection that did not come to stand."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return UntrustedBroker(
                f"broker {self} is not trusted ({error.verify_message.rstrip('.')}): "
                "name the authority of its certificate with ?ca=FILE"
            )
        if isinstance(error, ssl.SSLError):
            return UntrustedBroker(f"TLS with broker {self} failed ({_reason(error)}): {_next_step(error)}")
        return self.unavailable(str(error) or type(error).__name__)


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLEOFError):
        return "it hung up"
    return (error.reason or str(error)).replace("_", " ").lower()


def _next_step(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLEOFError):  # some brokers hang up instead of saying so
        return "check that the port speaks TLS, and name a client certificate if it asks: ?cert=FILE&key=FILE"
    if "ALERT" in (error.reason or ""):  # the broker does not like what it was shown
        return "name a client certificate it accepts with ?cert=FILE&key=FILE"
    return "check that the port speaks TLS 1.2 or newer"


def parse_url(url: str) -> Address:
    """Read ``mqtt[s]://[user:password@]host[:port][?ca=FILE&cert=FILE&key=FILE]``.

    The port defaults to 1883, with TLS to 8883. Relative paths start at the working directory. The files are read
    too, so that a node with a wrong one does not start. No message shows the password.

    Raises:
        MalformedBrokerUrl: anything else, or a file that cannot be used.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _malformed(url) from None  # the cause may quote a password
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.fragment or port == 0:
        raise _malformed(url)
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    return Address(parts.hostname, port or _PORTS[parts.scheme], user, password, _tls(url, parts))


def _tls(url: str, parts: SplitResult) -> Tls | None:
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _malformed(url) from None
    options = dict(pairs)
    unknown = sorted(set(options) - {"ca", "cert", "key"})
    if unknown or len(options) != len(pairs) or not all(options.values()):
        raise _malformed(url)
    if parts.scheme == "mqtt":
        if options:
            raise MalformedBrokerUrl(f"broker URL {_shown(url)!r} names files but has no TLS: write mqtts://")
        return None
    if "key" in options and "cert" not in options:
        raise MalformedBrokerUrl(f"broker URL {_shown(url)!r} has a key and no cert: add cert=FILE")
    tls = Tls(**{name: Path(value) for name, value in options.items()})
    tls.context()
    return tls


def _malformed(url: str) -> MalformedBrokerUrl:
    return MalformedBrokerUrl(f"broker URL {_shown(url)!r} is not one: {_FORM}")


def _shown(url: str) -> str:
    """The URL without what may be a password: all before the last @, and a port that is no number."""
    hidden = re.sub(r"//.*@", "//***@", url, flags=re.DOTALL)
    return re.sub(r"(//[^/?#]*?):(?!\d{1,5}(?:[/?#]|$))[^/?#\]]*(?=[/?#]|$)", r"\1:***", hidden)[:200]
