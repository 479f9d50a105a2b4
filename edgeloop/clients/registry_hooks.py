"""MLflow's own webhooks: who is told that an alias was set or deleted, so that nobody has to wait for the next poll.

A webhook is a hint and may be lost (three tries, then a line in MLflow's log); the alias itself is the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeloop.clients.registry_mlflow import MlflowRegistry

HOOK = "edgeloop-release"
_WEBHOOKS = "/api/2.0/mlflow/webhooks"
EVENTS = [{"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")]


def ensure_webhook(registry: MlflowRegistry, url: str, secret: str) -> str:
    """Let MLflow call ``url`` when an alias is set or deleted, signed with ``secret``; return the webhook's id.

    Idempotent by the name :data:`HOOK`: a webhook of that name is brought up to date, a second one is deleted. MLflow
    keeps its list of webhooks for a minute, and never shows a secret, which is therefore written every time.

    Raises:
        RegistryUnavailable: MLflow does not answer, or refuses the address: plain http and addresses that are not
            public need its settings ``MLFLOW_WEBHOOK_ALLOWED_SCHEMES`` and ``MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS``.
    """
    wanted = {"name": HOOK, "url": url, "events": EVENTS, "secret": secret, "status": "ACTIVE"}
    known = [str(one["webhook_id"]) for one in _webhooks(registry) if one["name"] == HOOK]
    if not known:
        made = registry.ask("POST", _WEBHOOKS, **wanted, description="Tells edgeloop that an alias moved.")
        return str(made["webhook"]["webhook_id"])
    first, *others = known
    registry.ask("PATCH", f"{_WEBHOOKS}/{first}", **wanted)
    for other in others:
        registry.ask("DELETE", f"{_WEBHOOKS}/{other}")
    return first


def _webhooks(registry: MlflowRegistry) -> Iterator[dict[str, Any]]:
    token = ""
    while True:
        page = registry.ask("GET", _WEBHOOKS, max_results="100", **({"page_token": token} if token else {}))
        yield from page.get("webhooks", [])
        token = page.get("next_page_token", "")
        if not token:
            return
