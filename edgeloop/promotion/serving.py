"""Runs the webhook receiver, and tells MLflow where it is for as long as it runs."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from edgeloop.clients.registry import RegistryUnavailable
from edgeloop.promotion.hook import Hook

_log = logging.getLogger(__name__)
#: A registry that lost its database or was restored learns the address anew.
_AGAIN_SECONDS = 300.0
_RETRY_SECONDS = 2.0
#: More are answered 503, after which MLflow tries again: whoever holds connections open fills no memory.
_CONNECTIONS = 64


def serve_hook(hook: Hook, listener: socket.socket, ensure: Callable[[], object] | None) -> None:
    """Answer until SIGINT or SIGTERM.

    Args:
        ensure: registers the receiver with MLflow, again and again; None when a person did.
    """
    import uvicorn

    config = uvicorn.Config(
        hook,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    ended = threading.Event()
    keeper = threading.Thread(target=keep_registered, args=(ensure, ended, hook), name="register", daemon=True)
    if ensure:
        keeper.start()
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        ended.set()


def keep_registered(ensure: Callable[[], object], ended: threading.Event, hook: Hook) -> None:
    """Register until ``ended``; a registry that is away or refuses is asked again, and said once."""
    wait, said = _RETRY_SECONDS, ""
    while True:
        try:
            ensure()
            hook.counts["registered"] = 1
            wait = _AGAIN_SECONDS
        except RegistryUnavailable as error:
            hook.counts["registered"] = 0
            wait = min(60.0, wait * 1.5) if wait < _AGAIN_SECONDS else _RETRY_SECONDS
            if said != str(error):
                said = str(error)
                _log.warning("MLflow does not know the receiver yet, the poll goes on: %s", error)
        if ended.wait(wait):
            return
