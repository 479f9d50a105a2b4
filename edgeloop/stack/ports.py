"""Which loopback port each part listens on: the usual one, that of last time, or any free one.

A chosen port is held by a bound socket until its part is started, so that two parts, or another program that
asks for a free port meanwhile, do not get the same.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from edgeloop.errors import BadInput
from edgeloop.stack.record import write_json

HOST = "127.0.0.1"
DEFAULTS: Mapping[str, int] = {"prefect": 4200, "mlflow": 5000, "broker": 1883, "page": 8080, "hook": 5050}
FIRST_NODE = 8081
# Free ports are looked for from here up; the ports below are many programs' usual ones.
_LOWEST, _TRIES = 20000, 50


class PortTaken(BadInput):
    """Another program listens on a port that a part of the stack needs."""

    def __init__(self, part: str, port: int) -> None:
        super().__init__(
            f"port {port} of {part} is taken: stop what listens there, or choose  --port {part}=NUMBER "
            " or  --free-ports"
        )
        self.part = part
        self.port = port


class UnknownPart(BadInput):
    """A port was asked for by the name of no part of the stack."""

    def __init__(self, name: str, parts: Iterable[str]) -> None:
        super().__init__(f"--port {name}=…: this stack has no part {name!r}; it has {', '.join(parts)}")


class HeldPorts:
    """Ports chosen for parts and kept from others until handed over; a context manager."""

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}
        self.numbers: dict[str, int] = {}

    def hold_any(self, part: str) -> int:
        """Bind a free port for ``part``, if possible one that the system gives to nobody's outgoing connections.

        Such a connection could else sit on the port just when the part is started again.
        """
        for port in random.sample(range(_LOWEST, max(first_ephemeral(), _LOWEST + _TRIES)), _TRIES):
            with contextlib.suppress(PortTaken):
                return self.hold(part, port)
        return self.hold(part, 0)

    def hold(self, part: str, port: int) -> int:
        """Bind ``port`` (0: the system chooses) for ``part``.

        Raises:
            PortTaken: another program has it.
        """
        try:
            # Alone it keeps everyone away; shared, as servers bind, it also gets a port whose last connections
            # are only winding down. A listener refuses both.
            held = _bound(port, shared=False)
        except OSError:
            try:
                held = _bound(port, shared=True)
            except OSError:
                raise PortTaken(part, port) from None
        self._sockets[part] = held
        self.numbers[part] = int(held.getsockname()[1])
        return self.numbers[part]

    def release(self, part: str) -> None:
        """Hand the port over: its part is about to bind it."""
        held = self._sockets.pop(part, None)
        if held is not None:
            held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for part in list(self._sockets):
            self.release(part)


def _bound(port: int, shared: bool) -> socket.socket:
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(shared))
        held.bind((HOST, port))
    except OSError:
        held.close()
        raise
    return held


def first_ephemeral() -> int:
    """The lowest port that the system gives to outgoing connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32768


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    try:
        with HeldPorts() as held:
            held.hold("", port)
    except PortTaken:
        return False
    return True


def default_port(part: str) -> int:
    """The port of a part when nobody chose another; node ``edge-N`` is at 8080 + N."""
    if part in DEFAULTS:
        return DEFAULTS[part]
    return FIRST_NODE - 1 + int(part.rpartition("-")[2])


def choose_ports(
    parts: Iterable[str],
    home: Path,
    wanted: Mapping[str, int] | None = None,
    free: bool = False,
) -> HeldPorts:
    """Choose and hold a port per part: the wanted one, else that of the last start, else the default or any.

    Args:
        wanted: ports somebody asked for by name; these are never replaced.
        free: take any free port where there is no earlier one that is still free.

    Raises:
        UnknownPart: a wanted port is of none of the parts.
        PortTaken: a wanted port has a listener, or without ``free`` any chosen one has.
    """
    parts = list(parts)
    for name in wanted or {}:
        if name not in parts:
            raise UnknownPart(name, parts)
    held = HeldPorts()
    earlier = earlier_ports(home)
    try:
        for part in parts:
            _hold_one(held, part, (wanted or {}).get(part), earlier.get(part), free)
    except PortTaken:
        held.__exit__()
        raise
    write_json(home / "ports.json", {**earlier, **held.numbers})
    return held


def _hold_one(held: HeldPorts, part: str, wanted: int | None, earlier: int | None, free: bool) -> None:
    if wanted is not None or not free:
        held.hold(part, wanted or earlier or default_port(part))
        return
    try:
        held.hold(part, earlier) if earlier else held.hold_any(part)
    except PortTaken:
        held.hold_any(part)


def earlier_ports(home: Path) -> dict[str, int]:
    """Ports of the last start by part; empty when there was none."""
    try:
        value = json.loads((home / "ports.json").read_text(encoding="utf-8"))
        return {str(part): int(port) for part, port in value.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
