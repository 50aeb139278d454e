"""News of commits for pages that are open, as server-sent events.

    event: hello      data: {"head": 41}           at the beginning of each connection
    event: commit     data: {"number": 42, "label": "...", "device": 0, "items": ["7", "9"]}
    event: reset      data: {"head": 99}           there was too much to tell: read again what is shown

Promises: each client has a bounded queue; one that does not read in time is told `reset` instead of what it missed.
There are at most `MAX_CLIENTS`. A commit that changes many items names none of them (`items` is null). The store is
watched only while somebody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from atop import AtopError, Commit, Store, Watch

MAX_CLIENTS = 64
MAX_WAITING = 200  # events of one client that have not been sent
MAX_ITEMS = 500  # ids in one event
# A line is sent this often, in seconds, so that both sides notice a dead connection.
HEARTBEAT = 10.0


class _Client:
    """One open connection. Its queue is used by the event loop alone."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: asyncio.Queue[str | None] = asyncio.Queue(MAX_WAITING)
        self.overrun = False

    def give(self, text: str | None) -> None:
        """Queue an event, or the end (None)."""
        if self.overrun and text is not None:
            return
        try:
            self.queue.put_nowait(text)
        except asyncio.QueueFull:
            while not self.queue.empty():
                self.queue.get_nowait()
            self.overrun = text is not None
            self.queue.put_nowait("" if text is not None else None)


class Live:
    """The clients that listen, and the watch that serves them. `publish` may be called by any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._clients: set[_Client] = set()
        self._watch: Watch | None = None
        self._closed = False

    def _told(self, commit: Commit) -> None:
        """Called by the store, in its thread."""
        try:
            ids = [str(item_id) for item_id in commit.item_ids]
        except AtopError:
            ids = []
        few = ids if 0 < len(ids) <= MAX_ITEMS else None
        data = {"number": commit.number, "label": commit.label[:200], "device": commit.device, "items": few}
        self.publish("commit", data)

    def publish(self, event: str, data: dict[str, Any]) -> None:
        """Send an event to everybody who listens."""
        text = f"event: {event}\ndata: {json.dumps(data)}\n\n"
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(RuntimeError):  # its loop has ended, and it with that
                    client.loop.call_soon_threadsafe(client.give, text)

    async def serve(self, request: Request) -> Response:
        """The stream of events for one client."""
        if self._closed or len(self._clients) >= MAX_CLIENTS:
            message = f"{MAX_CLIENTS} pages are listening already: close one of them."
            return JSONResponse({"error": "Refused", "message": message}, 503)
        client = _Client(asyncio.get_running_loop())
        return StreamingResponse(
            self._events(client), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )

    async def _events(self, client: _Client) -> AsyncIterator[str]:
        """Begins when the answer is sent, so that a client which went before that is never counted."""
        if not self._join(client):
            return
        try:
            yield f"retry: 1000\n{self._head_event('hello')}"
            while True:
                try:
                    text = await asyncio.wait_for(client.queue.get(), HEARTBEAT)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if text is None:
                    return
                if text:
                    yield text
                    continue
                client.overrun = False
                yield self._head_event("reset")
        finally:
            self._leave(client)

    def _join(self, client: _Client) -> bool:
        """Count a client in; False if there are too many by now."""
        with self._lock:
            if self._closed or len(self._clients) >= MAX_CLIENTS:
                return False
            self._clients.add(client)
            if self._watch is None:
                self._watch = self._store.watch(self._told)
            return True

    def _head_event(self, name: str) -> str:
        return f"event: {name}\ndata: {json.dumps({'head': self._store.head.number})}\n\n"

    def _leave(self, client: _Client) -> None:
        with self._lock:
            self._clients.discard(client)
            watch = None
            if not self._clients:
                watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    def hang_up(self) -> None:
        """End all connections; the pages come back by themselves, and read anew what they show."""
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(RuntimeError):
                    client.loop.call_soon_threadsafe(client.give, None)

    def close(self) -> None:
        """End all connections for good. May be called again."""
        with self._lock:
            self._closed = True
            watch, self._watch = self._watch, None
        self.hang_up()
        if watch is not None:
            watch.close()
