"""Work that may hang on a network or a disk, off the event loop and without holding up the end of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any


async def in_daemon(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``work`` in a thread of its own, which the end of the process does not wait for."""
    done: Future[Any] = Future()

    def body() -> None:
        try:
            outcome = work(*arguments)
        except BaseException as error:
            settle = partial(done.set_exception, error)
        else:
            settle = partial(done.set_result, outcome)
        with suppress(InvalidStateError, RuntimeError):  # nobody waits any more, the loop may be closed
            settle()

    threading.Thread(target=body, daemon=True).start()
    return await asyncio.wrap_future(done)
