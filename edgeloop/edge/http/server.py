"""Where a node listens and how: the address, TLS, and a uvicorn that tells the application who is at the other end.

uvicorn does not hand the client's certificate to the application, takes any number of connections, and with httptools
it reads a request's head and trailers without a bound of size or time; all this is put right here, in small subclasses
of its protocol.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgeloop.edge.http.access import TlsFiles
from edgeloop.errors import BadInput, Unavailable

if TYPE_CHECKING:
    import uvicorn

    from edgeloop.edge.http.app import App

#: Key of the client's common name in the state of a connection (``scope["state"]``).
PEER = "edgeloop.peer"
#: Most connections at once.
MOST_CONNECTIONS = 512
#: Most bytes of a request's first line and headers, and of its trailers, and most seconds to send them.
HEAD_BYTES = 64 * 1024
HEAD_SECONDS = 30.0
_ENDING_SECONDS = 3


class UnusableAddress(BadInput):
    """The HTTP address cannot be used."""


class AddressTaken(Unavailable):
    """Something else listens there."""


class UnusableTls(BadInput):
    """The files of ``tls`` do not make an HTTPS server."""


def bind(address: str, access_given: bool) -> socket.socket:
    """Listen on ``host:port``; anything but loopback needs ``access_given``: strangers are asked who they are.

    Raises:
        UnusableAddress: malformed, or not loopback.
        AddressTaken: the port is in use, or the address is none of this machine.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UnusableAddress(f"http is {address!r}: write host:port, port 0 for a free one")
    if not access_given and not _is_loopback(host):
        raise UnusableAddress(
            f"http is {address!r}, which others reach without being asked who they are: use 127.0.0.1, "
            "or name the callers in a file: access: access.yaml in node.yaml, or --access FILE, or --open, of serve"
        )
    try:
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        raise AddressTaken(
            f"http address {address} cannot be used ({error}): name another as http in node.yaml, or --http of serve"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_config(app: App, tls: TlsFiles | None = None) -> uvicorn.Config:
    """How uvicorn serves ``app``; certificates of clients are asked for when ``tls`` names who may sign them.

    Raises:
        UnusableTls: a file is missing or is not what it should be, or a caller is known by a certificate that
            nobody asks for.
    """
    import uvicorn

    if app.knows_certificates and not (tls and tls.client_ca):
        raise UnusableTls("access names a certificate and tls names no client_ca: set tls.client_ca in node.yaml")
    config = uvicorn.Config(
        app,
        http=_protocol(app.site.work.refused),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_ENDING_SECONDS,
        **_tls_arguments(tls),
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UnusableTls(f"tls files {_names(tls)} cannot be used ({error}): mend tls in node.yaml") from error
    return config


def make_server(app: App, tls: TlsFiles | None = None) -> uvicorn.Server:
    """A server that leaves the signals to the process; raises UnusableTls as :func:`server_config`."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Server(server_config(app, tls))


def _tls_arguments(tls: TlsFiles | None) -> dict[str, Any]:
    if tls is None:
        return {}
    arguments: dict[str, Any] = {"ssl_certfile": str(tls.cert), "ssl_keyfile": str(tls.key)}
    arguments["ssl_keyfile_password"] = ""  # a key that has one is an error, not a question on the terminal
    if tls.client_ca:
        arguments |= {"ssl_ca_certs": str(tls.client_ca), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    return arguments


def _names(tls: TlsFiles | None) -> str:
    return ", ".join(str(path) for path in (tls.cert, tls.key, tls.client_ca) if path) if tls else "none"


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The quickest event loop there is here: uvloop's, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def most_connections() -> int:
    """Connections that a node takes at once: at most half of the files it may open, for the spool opens some too."""
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // 2)


def _protocol(refused: Counter[str]) -> Any:
    """uvicorn's protocol, httptools' if it is there (h11 bounds the head by itself); ``refused`` counts by reason."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        return _with_few_connections(_with_peer(H11Protocol), refused)
    return _with_few_connections(_with_bounded_head(_with_peer(HttpToolsProtocol)), refused)


def _with_few_connections(base: Any, refused: Counter[str]) -> Any:
    most = most_connections()

    class FewProtocol(base):  # type: ignore[misc]
        """Ends connections over the most: whoever opens them without end must not take the files of the spool."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if len(self.connections) > most:
                refused["connections"] += 1
                transport.abort()

    return FewProtocol


def _with_peer(base: Any) -> Any:
    class PeerProtocol(base):  # type: ignore[misc]
        """Puts the common name of the client's certificate where the application finds it."""

        app_state: dict[str, Any]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            _send_at_once(transport)
            peer = common_name(transport.get_extra_info("peercert"))
            self.app_state = {**self.app_state, PEER: peer}

        def send_400_response(self, msg: str) -> None:
            """Also what is not HTTP gets an error object."""
            body = json.dumps({"error": f"{msg.rstrip('.')}: send HTTP/1.1"}).encode()
            head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            self.transport.close()

    return PeerProtocol


def _send_at_once(transport: asyncio.Transport) -> None:
    """Switch Nagle's algorithm off: head and body are two writes, and the second would wait 40 ms for an ACK.

    asyncio does so itself only for sockets that were made with the protocol's number, which ours was not.
    """
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _with_bounded_head(base: Any) -> Any:
    class HeadProtocol(base):  # type: ignore[misc]
        """Ends connections whose request head or trailers are too long, or on which no request comes.

        Also tells every unanswered request of a lost connection that nobody listens: uvicorn tells only the newest
        of those that were sent in one go, and the answer to another would be an error in the log.
        """

        _timer: asyncio.TimerHandle | None = None
        _head = 0
        """Bytes since a head was whole, a part of a body came, or a request ended: of a head, or of what is none."""
        _cycles: tuple[Any, ...] = ()

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._start_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            for cycle in self._unanswered():
                cycle.disconnected = True
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._head += len(data)
            super().data_received(data)
            if self.transport.is_closing():
                return
            if self._head > HEAD_BYTES:
                self.send_400_response(f"The head of the request is over {HEAD_BYTES} bytes")
            elif not self._unanswered():  # uvicorn has just forgotten that it would end an idle connection
                self._start_timer()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._start_timer()

        def on_body(self, body: bytes) -> None:
            self._head = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._head = 0
            super().on_message_complete()

        def on_headers_complete(self) -> None:
            self._head = 0
            self._stop_timer()
            super().on_headers_complete()
            self._cycles = (*self._unanswered(), self.cycle)

        def _unanswered(self) -> Sequence[Any]:
            return [cycle for cycle in self._cycles if not cycle.response_complete]

        def _start_timer(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return HeadProtocol


def common_name(certificate: Any) -> str | None:
    """The subject's common name in what ``getpeercert`` gives; None where there is not exactly one.

    Only a certificate that the server has verified has fields there.
    """
    subject = (certificate or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else None
