"""A node's HTTP on one release in a folder: no store, no captures, nothing written; to a broker reports at most.

For images that carry their model, as a KServe predictor or a pod of a DaemonSet does: the release came with the image
and goes with it, so there is no channel to follow and no disk to keep anything on.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.edge.allocator import give_back_large_blocks
from edgeloop.edge.daemon import in_daemon
from edgeloop.edge.gateway import Gateway
from edgeloop.edge.http import Site, bind, make_app, make_server, new_event_loop
from edgeloop.edge.http.access import load_access
from edgeloop.edge.memory import MemoryBudget
from edgeloop.edge.releases.loading import Loader
from edgeloop.edge.runtime import Runtime
from edgeloop.edge.selection.selector import Choice
from edgeloop.edge.spool.captures import NoCaptures
from edgeloop.edge.stats import Stats
from edgeloop.edge.telling import Teller
from edgeloop.errors import BadInput, EdgeloopError
from edgeloop.samples.records import digest
from edgeloop.samples.releases import MalformedRelease, Release, Role, parse_release

if TYPE_CHECKING:
    import socket

    import uvicorn

    from edgeloop.clients.models import Answer
    from edgeloop.edge.http.access import Access
    from edgeloop.samples.service import NodeConfig

_log = logging.getLogger(__name__)
#: The release's manifest,
MANIFEST = "release.json"
#: and its layers by role.
FILES: Mapping[Role, str] = {
    "backbone": "backbone.tflite",
    "head": "head.npz",
    "model": "model.onnx",
    "config": "config.json",
    "probe": "probe.json",
}


class UnusableFolder(BadInput):
    """A folder has no whole release."""


class ServerEnded(EdgeloopError):
    """The HTTP server ended while it was to run."""


class Packed:
    """A release in a folder: its manifest, the profile whose files these are, and their bytes by role."""

    def __init__(self, release: Release, profile: str | None, layers: Mapping[str, bytes]) -> None:
        self.release = release
        self.profile = profile
        self.layers = layers


def read_packed(folder: Path) -> Packed:
    """Read the release in ``folder``, and find out which of its variants the files are.

    Raises:
        UnusableFolder: no manifest, a file is missing, or one is not what the manifest names.
    """
    manifest = _read(folder, MANIFEST)
    try:
        release = parse_release(manifest, digest(manifest))
    except MalformedRelease as error:
        raise UnusableFolder(f"{folder / MANIFEST} is no manifest ({error!s:.200}): pack the release again") from error
    found = {role: _read(folder, name) for role, name in FILES.items() if (folder / name).is_file()}
    names = {role: digest(data) for role, data in found.items()}
    for profile in (None, *(variant.profile for variant in release.variants)):
        layers = {layer.role: layer.digest for layer in release.layers_for(profile)}
        if layers.items() <= names.items():
            return Packed(release, profile, {role: found[role] for role in layers})
    wrong = next(la.role for la in release.layers if names.get(la.role) != la.digest)
    raise UnusableFolder(
        f"{folder / FILES[wrong]} is {'another than' if wrong in found else 'missing:'} {MANIFEST} names it,"
        f" for the release and for its {len(release.variants)} variants: pack the release again"
    )


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise UnusableFolder(
            f"{folder / name} cannot be read ({error.strerror}): name the folder of a release, as /models in its image"
        ) from error


class ChoosesNothing:
    """A selector that sends nothing."""

    def choose(self, _config: NodeConfig, _sample_id: str, _payload: bytes, _answer: Answer, _size: int) -> Choice:
        """Not chosen."""
        return Choice(None, 0.0, 0.0, "not-collected")


class Standalone:
    """One release behind one address."""

    def __init__(
        self, packed: Packed, *, memory_mb: int | None = None, inflight: int = 32, teller: Teller | None = None
    ) -> None:
        service = packed.release.service
        self._packed = packed
        self._teller = teller
        self._loader = Loader(MemoryBudget(memory_mb), profile=packed.profile)
        self._runtime = Runtime()
        self._stats = Stats([service])
        captures = NoCaptures()
        gateway = Gateway("standalone", self._runtime, captures, self._stats, ChoosesNothing())
        pool = ThreadPoolExecutor(inflight + 8, "node")
        self._booted, self._stop = asyncio.Event(), asyncio.Event()
        self.site = Site(
            gateway, self._runtime, self._stats, captures, pool, inflight, booted=self._booted, memory_mb=memory_mb
        )

    async def serve(self, address: str, access: Access | None, *, is_open: bool) -> None:
        """Answer until SIGTERM or SIGINT; health from the start on, ready once the self-check has passed.

        Raises:
            UnloadableModel, FailedProbe, ModelTooBig: the release cannot be served.
            UnusableAddress, AddressTaken: nor on this address.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self.site.access = access
        server, listener = make_server(make_app(self.site)), bind(address, is_open or access is not None)
        host, port = listener.getsockname()[:2]
        _log.info("listening", extra={"host": host, "port": port})
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await self._load_and_wait(serving)
        finally:
            await _end(server, serving, listener)

    async def _load_and_wait(self, serving: asyncio.Task[None]) -> None:
        loading = asyncio.create_task(in_daemon(self._load))
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([loading, stopping, serving], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
            self._booted.set()
            _log.info("ready", extra={"service": self._packed.release.service, "release": self._packed.release.digest})
            telling = asyncio.create_task(self._tell())
            await asyncio.wait([stopping, serving], return_when=asyncio.FIRST_COMPLETED)
            telling.cancel()
            await asyncio.wait([telling])
        if not stopping.done():
            stopping.cancel()
            raise ServerEnded("the HTTP server ended by itself: see the log, and start it again")

    async def _tell(self) -> None:
        """What ends this must not end what is answered."""
        if self._teller is None:
            return
        release = self._packed.release
        try:
            await self._teller.tell(release.service, release.digest, self._packed.profile, self._stats)
        except Exception:
            _log.exception("no more reports")

    def stop(self) -> None:
        """End ``serve``; for its event loop."""
        self._stop.set()

    def _load(self) -> None:
        loaded = self._loader.load(self._packed.release, self._packed.layers)
        self._runtime.switch(self._packed.release.service, loaded)


async def _end(server: uvicorn.Server, serving: asyncio.Task[None], listener: socket.socket) -> None:
    server.should_exit = True
    await serving
    listener.close()


def serve_folder(
    folder: Path,
    address: str,
    *,
    access: Path | None = None,
    is_open: bool = False,
    memory_mb: int | None = None,
    inflight: int = 32,
    teller: Teller | None = None,
) -> None:
    """Serve the release in ``folder`` on ``address`` until SIGTERM or SIGINT.

    Args:
        access: who may ask what (``access.yaml``).
        teller: reports to a broker.
        is_open: others than loopback may ask without being asked who they are: something before the address asks.

    Raises:
        UnusableFolder, MalformedAccess, UnusableAddress, MalformedBrokerUrl, UnusableNode: what was given cannot be
            used.
        UnloadableModel, FailedProbe: the release fails its self-check.
    """
    give_back_large_blocks()
    packed = read_packed(folder)
    callers = load_access(access) if access else None
    if teller is not None:
        teller.check()

    async def main() -> None:
        server = Standalone(packed, memory_mb=memory_mb, inflight=inflight, teller=teller)
        await server.serve(address, callers, is_open=is_open)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())
