"""The pages in a real browser."""

from __future__ import annotations

from typing import Any

from browsing import Served


def test_the_list_of_pools_follows_what_happens_elsewhere(served: Served, screen: Any) -> None:
    screen.get_by_text("This store is empty").wait_for()
    screen.get_by_text("Up to date").wait_for()
    served.store.pool("books", indexes=["title"])
    screen.locator("main").get_by_role("link", name="books").wait_for()
