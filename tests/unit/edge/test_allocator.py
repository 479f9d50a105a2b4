"""Large pictures do not leave a node larger than it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeloop.clients.broker_types import MalformedBrokerUrl
from edgeloop.edge import node
from edgeloop.edge.config import NodeSettings
from tests.conftest import ROOT

CHILD = """
import io
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from PIL import Image
from edgeloop.edge.allocator import give_back_large_blocks
from edgeloop.edge.memory import resident_bytes
from edgeloop.samples.payloads import decode_image

give_back_large_blocks()
sink = io.BytesIO()
Image.new("RGB", (2800, 2400)).save(sink, "PNG", compress_level=1)
together = Barrier(8)

def decode(_):
    together.wait()
    decode_image(sink.getvalue(), 16)
    decode_image(sink.getvalue(), 16)

decode_image(sink.getvalue(), 16)
before = resident_bytes()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(decode, range(8)))
    print((resident_bytes() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident")
def test_large_pictures_leave_no_memory_behind_in_any_thread() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 12, f"{done.stdout.strip()} MiB more"


def test_a_node_runs_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[None] = []
    monkeypatch.setattr(node, "give_back_large_blocks", lambda: called.append(None))
    settings = NodeSettings(node="n", ring=0, services=["s"], state=tmp_path, store=str(tmp_path), broker="nonsense")
    with pytest.raises(MalformedBrokerUrl):
        node.run(settings)
    assert called
