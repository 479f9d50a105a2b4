"""amqtt, a broker of MQTT 3.1.1 in Python, in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from typing import Any

from tests.servers.ports import free_port


class Amqtt:
    """A broker for anybody on a free port; ``more`` options of its listener."""

    def __init__(self, **more: Any) -> None:
        self.port = free_port()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        listener = {"type": "tcp", "bind": f"127.0.0.1:{self.port}"} | more
        config: dict[str, Any] = {"listeners": {"default": listener}, "plugins": plugins}
        self._broker = asyncio.run_coroutine_threadsafe(self._begin(config), self._loop).result(30)

    async def _begin(self, config: dict[str, Any]) -> Any:
        from amqtt.broker import Broker

        broker = Broker(config)
        await broker.start()
        return broker

    def stop(self) -> None:
        """End it, with the connections of clients that leave at this moment: those it forgets."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()
        self._broker = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()

    async def _end(self) -> None:
        await self._broker.shutdown()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
