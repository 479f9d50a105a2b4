"""Processes for the tests of the spool: one that is killed while it works, and one on a disk of its own.

``killed FOLDER STORE ROUNDS``: forks workers that append from several threads and upload, kills each after a while,
and prints the numbers that were acknowledged. ``small FOLDER``: mounts a small disk, fills it, makes it read-only.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from edgeloop.clients.objects import DirectoryStore
from edgeloop.edge.spool.spool import Limits, Spool, SpoolFailed, SpoolFull
from tests.unit.edge.spooled import sample, stored

_THREADS = 3


def killed(folder: Path, store: Path, rounds: int) -> None:
    generator = random.Random(7)
    for number in range(rounds):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _work(folder, store, first=number * 1_000_000, told=writing)
        os.close(writing)
        os.read(reading, 1)  # it is at work
        time.sleep(generator.uniform(0.0, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            sys.stdout.write(pipe.read().decode())


def _work(folder: Path, store: Path, *, first: int, told: int) -> None:
    spool, objects = Spool(folder, Limits(samples=5)), DirectoryStore(store)

    def write(start: int) -> None:
        for number in range(start, start + 100_000):
            spool.append(sample(number))
            os.write(told, b" %d\n" % number)

    for thread in range(_THREADS):
        threading.Thread(target=write, args=(first + thread * 100_000,), daemon=True).start()
    while True:
        spool.cut(everything=True)
        spool.upload(objects)


def small(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    store = Path(folder.parent / "store")
    clock = [0.0]
    spool = Spool(folder / "spool", Limits(samples=50), clock=lambda: clock[0])
    taken = _fill(spool, 0)
    print("full", taken, spool.accepting)
    spool.cut(everything=True)
    print("sent", spool.upload(DirectoryStore(store)) > 0, stored(DirectoryStore(store)) == list(range(taken)))
    clock[0] = 6.0
    spool.cut()
    print("mended", spool.accepting)
    spool.append(sample(5000))
    spool.cut(everything=True)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    _read_only(spool, store, clock)
    spool.close()
    _read_only(Spool(folder / "spool"), store, clock)
    subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    spool = Spool(folder / "spool")
    spool.append(sample(5001))
    spool.cut(everything=True)
    spool.upload(DirectoryStore(store))
    print("end", stored(DirectoryStore(store)) == [*range(taken), 5000, 5001], spool.samples, spool.corrupt)
    spool.close()


def _read_only(spool: Spool, store: Path, clock: list[float]) -> None:
    clock[0] += 6.0
    try:
        spool.append(sample(6000))
    except SpoolFailed as error:
        print("refused", "Read-only" in str(error), spool.accepting)
    spool.upload(DirectoryStore(store))
    print("sent", 5000 in stored(DirectoryStore(store)), spool.upload(DirectoryStore(store)))


def _fill(spool: Spool, number: int) -> int:
    while True:
        try:
            spool.append(sample(number, payload=os.urandom(3000)))
        except (SpoolFailed, SpoolFull):
            return number
        number += 1


if __name__ == "__main__":
    if sys.argv[1] == "killed":
        killed(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        small(Path(sys.argv[2]))
