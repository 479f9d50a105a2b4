"""What ``edgeloop up`` was asked for, and where everything of it will be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgeloop.stack.ports import HOST


@dataclass(frozen=True)
class StackPlan:
    """What ``edgeloop up`` was asked for."""

    home: Path
    rooms: Path
    """Directory with flows/, tasks/ and deployments/."""
    services: list[str]
    nodes: int = 2
    ports: Mapping[str, int] = field(default_factory=dict)
    """Ports asked for by part (``prefect``, ``mlflow``, ``broker``, ``page``, ``hook``, ``edge-1``...)."""
    free_ports: bool = False
    """Take free ports where none was asked for or used before."""
    rings: Mapping[int, int] = field(default_factory=dict)
    """Ring by number of the node; without an entry the first node is in ring 0 and the others in ring 1."""
    store_url: str = ""
    """Object store; default the directory ``<home>/store``."""
    database: str = ""
    """SQLAlchemy URL of Prefect's database; default SQLite in the home."""
    runner: bool = True
    """Register the deployments and start a worker for them."""
    root: bytes = b""
    """Root of the signed channel for the nodes to trust (``Publisher.ensure``); without it they follow no channel."""
    page: bool = False
    """Serve the fleet page as well."""
    hook: bool = False
    """Hear MLflow's webhooks, so that an alias that was set by hand is seen at once."""

    @property
    def node_names(self) -> list[str]:
        """``edge-1`` to ``edge-N``."""
        return [f"edge-{number}" for number in range(1, self.nodes + 1)]

    @property
    def listening(self) -> list[str]:
        """Parts that need a port."""
        extra = [name for name, wanted in (("page", self.page), ("hook", self.hook)) if wanted]
        return ["prefect", "mlflow", "broker", *extra, *self.node_names]

    @property
    def store(self) -> str:
        """The object store's URL with the default filled in."""
        return self.store_url or str(self.home.absolute() / "store")

    def ring(self, number: int) -> int:
        """Ring of node ``edge-<number>``."""
        return self.rings.get(number, 0 if number == 1 else 1)


def build_addresses(plan: StackPlan, ports: Mapping[str, int]) -> dict[str, str]:
    """Addresses by name: ``prefect`` is the API, ``prefect_ui`` its page, ``store`` the object store; else the part."""
    prefect = f"http://{HOST}:{ports['prefect']}"
    nodes = {name: f"http://{HOST}:{ports[name]}" for name in plan.node_names}
    return {
        "prefect": f"{prefect}/api",
        "prefect_ui": prefect,
        "mlflow": f"http://{HOST}:{ports['mlflow']}",
        "broker": f"mqtt://{HOST}:{ports['broker']}",
        "store": plan.store,
        **({"page": f"http://{HOST}:{ports['page']}"} if plan.page else {}),
        **({"hook": f"http://{HOST}:{ports['hook']}"} if plan.hook else {}),
        **nodes,
    }
