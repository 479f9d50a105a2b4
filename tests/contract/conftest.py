"""Servers that the contracts are shown on; each is started once, when it is first asked for."""

from tests.contract.mlflow_server import mlflow_url
from tests.contract.prefect_server import prefect_server

__all__ = ["mlflow_url", "prefect_server"]
