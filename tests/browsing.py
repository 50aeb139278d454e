"""The data browser under test: served on a free port, asked by httpx, and shown by a real Chromium.

Fixtures, for every test (conftest.py takes them over):

- `served`: the test's store, served; `served.client` is signed in, `served.stranger()` is not.
- `screen`: a page of Chromium that is signed in to `served`; it fails the test if the page logs an error, breaks the
  content security policy, or gets an answer of 500 or more. `screen.goto(served.base + "/pools")`.
- `chromium`: the browser itself, one for each module of tests; they are skipped where there is none.

Modules of tests that use `screen` must not run an asyncio loop of their own: Playwright has one in this thread.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from atop import Store

if TYPE_CHECKING:
    import httpx

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_CHROMIUM = (
    "Chromium is not installed, so pages were not tested in a real browser: apt-get install chromium, then run again"
)
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# How long a page may take to show what is expected, in milliseconds: generous, for machines under load.
PATIENCE = 40_000


class Served:
    """A store that is served: `base` is where, `client` asks as a browser that is signed in."""

    def __init__(self, store: Store) -> None:
        from atop.browser import serve_in_thread

        self.store = store
        self.server = serve_in_thread(store, port=0)
        self.base = self.server.base
        self.url = self.server.url
        self._clients: list[httpx.Client] = []
        self.client = self.stranger()
        self.client.get(self.url)

    def stranger(self) -> httpx.Client:
        """A client that has no cookie; what it sends comes from this origin."""
        import httpx

        headers = {"origin": self.base, "accept": "application/json"}
        client = httpx.Client(base_url=self.base, headers=headers, timeout=60)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.close()


@pytest.fixture
def served(store: Store) -> Iterator[Served]:
    """The test's store, served."""
    served = Served(store)
    yield served
    served.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


def watched_page(context: Any, faults: list[str]) -> Any:
    """A new page whose errors are collected."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("response", lambda r: faults.append(f"{r.status} {r.url}") if r.status >= 500 else None)
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" and "status of 4" not in m.text else None)
    return page


@pytest.fixture
def screen(chromium: Any, served: Served) -> Iterator[Any]:
    """A page that is signed in."""
    faults: list[str] = []
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    page = watched_page(context, faults)
    page.goto(served.url)
    page.wait_for_url(re.compile("/(pools|contacts)$"))
    yield page
    context.close()
    assert faults == []


def faults_of(page: Any) -> list[str]:
    """What axe-core finds on a page that is serious or critical: the rule, and the first elements."""
    from importlib.resources import files

    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text("utf-8"))
    found = page.evaluate(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
    )
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
