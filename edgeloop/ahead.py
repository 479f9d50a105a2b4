"""Imports that a round will need, made while it waits for servers: Great Expectations alone costs two seconds."""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress


def import_ahead(*modules: str) -> threading.Thread:
    """Import ``modules`` in order in a daemon thread; one that is not installed is left to whoever needs it."""

    def load() -> None:
        for name in modules:
            with suppress(ImportError):
                importlib.import_module(name)

    thread = threading.Thread(target=load, name="import-ahead", daemon=True)
    thread.start()
    return thread
