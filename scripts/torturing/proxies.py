"""The network between the tortured devices: every link goes through a proxy here, so that it can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK = 1 << 16


class Proxy:
    """Carries connections from a port of its own to a device's, unless it is cut."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self.cut = False
        self.port = 0

    async def start(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def set_cut(self, cut: bool) -> None:
        self.cut = cut
        if cut:
            for writer in list(self._open):
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        self._open -= {writer, far_writer}

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                writer.write(chunk)
                await writer.drain()
        writer.close()


class Network:
    """A proxy for each ordered pair of devices, on a thread of its own."""

    def __init__(self, ports: dict[str, int]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._proxies = {(a, b): Proxy(ports[b]) for a in ports for b in ports if a != b}
        for proxy in self._proxies.values():
            self._run(proxy.start())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def addresses_for(self, name: str) -> list[str]:
        """Where a device finds the others."""
        return [f"127.0.0.1:{proxy.port}" for (one, _), proxy in self._proxies.items() if one == name]

    def set_cut(self, one: str, two: str, cut: bool) -> None:
        """Cut the link between two devices, or let it be made again."""
        for pair in ((one, two), (two, one)):
            self._run(self._proxies[pair].set_cut(cut))

    def is_cut(self, one: str, two: str) -> bool:
        """Whether their link is cut."""
        return self._proxies[one, two].cut

    def close(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
