"""A node is small: what only the cloud needs must not come in by the way."""

from __future__ import annotations

import subprocess
import sys

FORBIDDEN = (
    *("tensorflow", "keras", "pandas", "pyarrow", "prefect", "mlflow", "great_expectations", "sklearn"),
    *("deltalake", "sqlalchemy", "fastapi", "minio", "amqtt", "skl2onnx", "onnx", "matplotlib", "httpx", "starlette"),
)
ROOMS = ("learning", "release", "fleet", "quality", "web", "store", "bootstrap", "cli")

PROGRAM = """
import pkgutil, importlib, sys
import edgeloop.edge
for module in pkgutil.walk_packages(edgeloop.edge.__path__, "edgeloop.edge."):
    importlib.import_module(module.name)
import uvicorn
from edgeloop.clients.models import LinearHead
print("\\n".join(sorted(sys.modules)))
"""


def loaded_modules() -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_node_brings_nothing_of_the_cloud() -> None:
    modules = loaded_modules()
    assert {"edgeloop.edge.node", "edgeloop.edge.spool.spool", "edgeloop.edge.releases.agent"} <= modules
    assert not {m for m in modules if m.split(".")[0] in FORBIDDEN}
    assert not {m for m in modules if f"{m}.".startswith(tuple(f"edgeloop.{room}." for room in ROOMS))}
    assert "onnxruntime" not in modules
