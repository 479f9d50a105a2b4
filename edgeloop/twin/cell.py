"""Becomes a command that is bound to some cores and to a control group, and that does not outlive who started it.

Runs as ``python -m edgeloop.twin.cell CORES CGROUP PARENT -- COMMAND…``: done before the command begins, none of its
threads can have got away. CORES are numbers with commas; CGROUP is a folder, or ``-`` for none; PARENT is the process
that waits for it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """See the module; does not return."""
    cores, cgroup, parent, _, *command = arguments
    if cgroup != "-":
        with open(os.path.join(cgroup, "cgroup.procs"), "w", encoding="ascii") as members:
            members.write(str(os.getpid()))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):  # it died before it could be said
            sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
