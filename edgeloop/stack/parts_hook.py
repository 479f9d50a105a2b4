"""The part `hook`: MLflow calls it when an alias moves, so that nobody waits for the next poll.

Only on this machine. MLflow calls plain http and loopback addresses only when told to, by two settings that it keeps
for development; a fleet in earnest has the receiver behind https.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from edgeloop.stack.health import http_answers
from edgeloop.stack.part import Part
from edgeloop.stack.plan import StackPlan


def hook_part(plan: StackPlan, port: int, addresses: Mapping[str, str], env: Mapping[str, str]) -> Part:
    """The receiver of MLflow's webhooks; it registers itself when MLflow answers."""
    home = plan.home.absolute()
    return Part(
        name="hook",
        command=(sys.executable, "-m", "edgeloop.cli", "--home", str(home), "release", "hook", "--port", str(port)),
        env=env,
        cwd=home,
        health=lambda: http_answers(f"{addresses['hook']}/healthz"),
        needs=("mlflow",),
        address=addresses["hook"],
        grace=5.0,
    )


def webhook_settings(folder: Path) -> dict[str, str]:
    """MLflow's settings for webhooks to this machine; its key for the secrets in its database is kept in ``folder``."""
    return {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": _kept_key(folder / "webhook.key"),
    }


def _kept_key(path: Path) -> str:
    """A Fernet key, 32 bytes in URL-safe base64; without it a secret is lost when MLflow starts again."""
    if not path.exists():
        beside = path.with_name(f"{path.name}.tmp")
        beside.unlink(missing_ok=True)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(base64.urlsafe_b64encode(os.urandom(32)))
        beside.replace(path)
    return path.read_text(encoding="ascii").strip()
