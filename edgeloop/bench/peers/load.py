"""Clients that ask one server the same thing as fast as it answers: one thread and one connection each.

Runs as a process of its own: ``python -m edgeloop.bench.peers.load HOST PORT REQUEST_FILE CLIENTS SECONDS``. The file
holds the bytes of a whole HTTP request. Ends after SECONDS, or at SIGTERM. Prints one JSON object: ``started`` and
``took`` of each answer in seconds, ``failed``, ``seconds``.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What one client saw."""

    started: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def read_answer(link: socket.socket) -> bytes:
    """The status line of one answer; its body is read and thrown away.

    Raises:
        ConnectionError: the server hung up before the answer was whole.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(link)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
    left = length - len(body)
    while left > 0:
        left -= len(_more(link))
    return head.split(b"\r\n", 1)[0]


def _more(link: socket.socket) -> bytes:
    data = link.recv(1 << 16)
    if not data:
        raise ConnectionError("the server hung up")
    return data


def client(address: tuple[str, int], request: bytes, over: threading.Event, tally: Tally) -> None:
    """Ask until it is over; after a connection that failed, on a new one."""
    while not over.is_set():
        try:
            with connect(address) as link:
                ask(link, request, over, tally)
        except OSError as error:
            tally.failed.append(str(error))
            over.wait(0.1)


def ask(link: socket.socket, request: bytes, over: threading.Event, tally: Tally) -> None:
    """Ask on one connection; raises OSError when it fails."""
    while not over.is_set():
        started, begun = time.time(), time.perf_counter()
        link.sendall(request)
        status = read_answer(link)
        tally.started.append(started)
        tally.took.append(time.perf_counter() - begun)
        if b" 200 " not in status + b" ":
            tally.failed.append(status.decode(errors="replace"))


def connect(address: tuple[str, int]) -> socket.socket:
    """A connection that sends at once."""
    link = socket.create_connection(address, timeout=30)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def main(arguments: list[str]) -> None:
    host, port, file, clients, seconds = arguments
    with open(file, "rb") as source:
        request = source.read()
    tallies = [Tally() for _ in range(int(clients))]
    begun, over = time.perf_counter(), threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    threads = [threading.Thread(target=client, args=((host, int(port)), request, over, t)) for t in tallies]
    for thread in threads:
        thread.start()
    over.wait(float(seconds))
    over.set()
    for thread in threads:
        thread.join()
    result = {
        "started": [s for t in tallies for s in t.started],
        "took": [s for t in tallies for s in t.took],
        "failed": [s for t in tallies for s in t.failed],
        "seconds": time.perf_counter() - begun,
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
