"""The HTTP server of a node around models that are in memory, for tests that are about protocols."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from edgeloop.clients.models import Model
from edgeloop.edge.gateway import Gateway
from edgeloop.edge.http import Site, bind, make_app, server_config
from edgeloop.edge.runtime import Loaded, Runtime
from edgeloop.edge.selection.selector import Selectors
from edgeloop.edge.spool.spool import Spool
from edgeloop.edge.stats import Stats
from edgeloop.samples.service import NodeConfig
from tests.servers.ports import wait_until


@contextmanager
def node_serving(folder: Path, models: Mapping[str, tuple[NodeConfig, Model]]) -> Iterator[str]:
    """The address of a node that serves ``models`` by service."""
    runtime, spool, stats = Runtime(2), Spool(folder), Stats(list(models))
    for name, (config, model) in models.items():
        runtime.switch(name, Loaded(f"sha256:{name}", "1", config, model))
    gateway = Gateway("n1", runtime, spool, stats, Selectors(folder / "selection", b"salt"))
    with ThreadPoolExecutor(4) as pool, bind("127.0.0.1:0", False) as listener:
        site = Site(gateway=gateway, runtime=runtime, stats=stats, spool=spool, pool=pool)
        server = uvicorn.Server(server_config(make_app(site)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until("the node listens", lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
            runtime.close()
            spool.close()
