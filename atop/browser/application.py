"""The application: the views, the shared parts, and the guard in front of them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Collection
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from atop import Store
from atop.browser import (
    calendar,
    changes,
    contacts,
    group,
    items,
    mail,
    notes,
    past,
    pools,
    settling,
    table,
    transfer,
)
from atop.browser.assets import Assets
from atop.browser.jobs import Jobs
from atop.browser.layouts import Layouts
from atop.browser.live import Live
from atop.browser.pages import Pages
from atop.browser.problems import HANDLERS
from atop.browser.security import Guard
from atop.browser.views import Entry, View

# In the order of the navigation. A view is added here; see the docstring of `atop.browser`.
VIEWS: tuple[View, ...] = (
    contacts.VIEW,
    calendar.VIEW,
    mail.VIEW,
    notes.VIEW,
    group.VIEW,
    settling.VIEW,
    past.VIEW,
    pools.VIEW,
    table.VIEW,
    items.VIEW,
    changes.VIEW,
    transfer.VIEW,
)

STATIC = "/static/"


class Browser:
    """The data browser of one store: an ASGI application. Made by `app`.

    `token` opens it (`first_url` has it); `close` ends its connections and threads, and leaves the store open.
    """

    def __init__(self, store: Store, device: Any, hosts: Collection[str], secret: bytes) -> None:
        self.store = store
        self.device = device
        self.token = secrets.token_urlsafe(24)
        self.assets = Assets()
        self.pages = Pages(self)
        self.live = Live(store)
        self.jobs = Jobs()
        self.layouts = Layouts(store.path / "local")
        self.entries: list[Entry] = [entry for view in VIEWS for entry in view.entries]
        routes = [route for view in VIEWS for route in view.routes]
        inner = Starlette(
            routes=[
                Route(f"{STATIC}{{name}}", self.assets.serve),
                Route("/api/events", self.live.serve),
                *routes,
            ],
            exception_handlers=HANDLERS,
            lifespan=self._lifespan,
        )
        inner.state.browser = self
        self._guard = Guard(inner, self.token, secret, hosts, STATIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        await self._guard(scope, receive, send)

    def first_url(self, base: str) -> str:
        """The address that a person opens first, below `base` ("http://127.0.0.1:4780")."""
        return f"{base.rstrip('/')}/?token={quote(self.token)}"

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """End the connections for news, and the threads. May be called again."""
        self.live.close()
        self.jobs.close()


def app(store_or_device: Any, *, hosts: Collection[str] = (), secret: bytes | None = None) -> Browser:
    """The data browser of a store, or of a `replication.Device`, as an ASGI application.

    Args:
        store_or_device: a Store, or what has one as `store`.
        hosts: names of this server, without port, that requests may come to, besides 127.0.0.1, localhost and [::1].
        secret: at least 32 bytes, from which the cookie is worked out. With the same one a browser that was let in
            once stays so when the program starts anew; by default each application has its own.
    """
    store = store_or_device if isinstance(store_or_device, Store) else store_or_device.store
    device = None if isinstance(store_or_device, Store) else store_or_device
    if secret is not None and len(secret) < 32:
        raise ValueError("the secret needs at least 32 bytes")
    return Browser(store, device, hosts, secret or secrets.token_bytes(32))
