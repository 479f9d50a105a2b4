"""The socket of the webhook receiver."""

from __future__ import annotations

import socket

from edgeloop.errors import BadInput


class UnusableAddress(BadInput):
    """The receiver cannot listen there."""


def bind(host: str, port: int) -> socket.socket:
    """Listen on ``host:port``; port 0 is any free one. Raises UnusableAddress."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnusableAddress(
            f"{host} port {port} cannot be used ({reason}): choose another --host or --port"
        ) from None
