"""Serves the page on this machine only: it asks nobody who they are."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING

from edgeloop.errors import BadInput
from edgeloop.stack.ports import PortTaken

if TYPE_CHECKING:
    from fastapi import FastAPI


class NotLoopback(BadInput):
    """The page was to be offered to other machines."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"host {host} can be reached by others, and the page asks nobody who they are: use 127.0.0.1, "
            "and from elsewhere  ssh -L"
        )


class PagePortTaken(PortTaken):
    """Another program listens where the page was to."""

    def __init__(self, port: int) -> None:
        super().__init__("page", port)
        self.args = (f"port {port} is taken: stop what listens there, or choose  edgeloop web --port NUMBER",)


class UnusablePort(BadInput):
    """The system does not let the page listen there."""


def bind(host: str, port: int) -> socket.socket:
    """Listen on ``host:port``; port 0 is any free one.

    Raises:
        NotLoopback: ``host`` is no loopback address.
        PagePortTaken: something else listens there.
        UnusablePort: the port cannot be used for another reason.
    """
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    if not _is_loopback(host):
        raise NotLoopback(host)
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PagePortTaken(port) from None
        raise UnusablePort(f"port {port} of {host} cannot be used ({error.strerror}): choose another --port") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(listener: socket.socket) -> str:
    """What to type into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(page: FastAPI, listener: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM."""
    import uvicorn

    # A browser that is slow to go must not keep the stack from stopping.
    config = uvicorn.Config(
        page, log_level="warning", access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=2
    )
    uvicorn.Server(config).run(sockets=[listener])
