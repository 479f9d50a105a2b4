"""Asks the page without a server between, as a browser on this machine would."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from edgeloop.web.glance import Look
from edgeloop.web.page import create_page


class Browser:
    """Asks a page that shows what ``look`` gives."""

    def __init__(self, look: Look, **options: float) -> None:
        self._page = create_page(look, **options)

    def get(self, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """GET ``path``."""
        return self.request("GET", path, headers)

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
        """Any method."""
        return asyncio.run(self._ask(method, path, headers))

    async def _ask(self, method: str, path: str, headers: dict[str, str] | None) -> httpx.Response:
        transport: Any = httpx.ASGITransport(app=self._page)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            return await client.request(method, path, headers=headers)
