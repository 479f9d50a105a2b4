"""Servers that the contracts are shown on; each is started once, when it is first asked for."""

from tests.contract.prefect_server import prefect_server

__all__ = ["prefect_server"]
