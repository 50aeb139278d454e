#!/usr/bin/env python
"""Takes the pictures of the data browser that are in docs/, on sample data, in light and dark.

    scripts/screenshots.py [DIRECTORY]

Needs the extra `dev` and Chromium. The pictures are docs/browser-VIEW-SCHEME.png unless DIRECTORY says otherwise.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from sample_life import fill

from atop import Store
from atop.browser import serve_in_thread
from atop.pim import import_file

SCRIPTS = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE = {"width": 1020, "height": 600}


def table(page: Any, base: str, store: Store) -> None:
    """Contacts in the order of names, one cell being edited, two rows selected."""
    page.goto(f"{base}/pools/{store.pool('contacts').item_id}")
    page.get_by_role("gridcell").first.wait_for()
    page.get_by_role("gridcell").first.click()
    page.keyboard.type("ne")
    page.locator(".jump", has_text="Go to ne").wait_for()
    page.locator("tbody tr", has_text="Nell").first.wait_for()
    rows = page.locator("tbody tr", has_text="Nell")
    for place in (1, 2):
        rows.nth(place).get_by_role("checkbox").click()
    rows.nth(5).locator("td").nth(2).dblclick()


def item(page: Any, base: str, store: Store) -> None:
    """A contact with a picture, after two changes."""
    contact = next(c for c in store.pool("contacts").query("name", start="Mara") if c.photo is not None)
    if not contact.note.startswith("Plays"):
        contact.note = "Plays the violin.\nCall before noon."
        contact.note = "Plays the cello.\nCall after noon."
    page.goto(f"{base}/items/{contact.item_id}")
    page.get_by_role("heading", level=1).wait_for()


def contacts(page: Any, base: str, store: Store) -> None:
    """The card of a violin maker."""
    page.goto(f"{base}/contacts/{next(store.pool('contacts').query('name', key='Oskar Brandt')).item_id}")
    page.get_by_role("heading", name="Oskar Brandt").wait_for()


def mail(page: Any, base: str, store: Store) -> None:
    """The last message of a conversation."""
    found = list(store.pool("messages").query("subject", key="Re: Proofs of the programme"))
    page.goto(f"{base}/mail/{found[-1].item_id}")
    page.get_by_text("Conversation, 3 messages").wait_for()


def calendar(page: Any, base: str, _: Store) -> None:
    """A month."""
    page.goto(f"{base}/calendar/month/2025-05")
    page.get_by_text("Norway with Camille").first.wait_for()


def week(page: Any, base: str, _: Store) -> None:
    """A week."""
    page.goto(f"{base}/calendar/week/2025-05-12")
    page.get_by_text("Choir").wait_for()


def history(page: Any, base: str, store: Store) -> None:
    """A commit and what it changed."""
    contact = next(store.pool("contacts").query("name", key="Oskar Brandt"))
    if contact.city == "Cremona":
        with store.transaction("Oskar moves"):
            contact.city, contact.note = "Basel", "Plays the viola. His workshop is in the old mill."
    page.goto(f"{base}/history/{store.head.number}")
    page.get_by_text("old mill").wait_for()


VIEWS: dict[str, Callable[[Any, str, Store], None]] = {"table": table, "item": item}
# Of a small store that looks like somebody's.
PERSONAL: dict[str, Callable[[Any, str, Store], None]] = {
    "contacts": contacts,
    "mail": mail,
    "calendar": calendar,
    "week": week,
    "history": history,
}


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SCRIPTS.parent / "docs"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, SCRIPTS / "sample_data.py", folder], check=True, stdout=subprocess.DEVNULL)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            with Store(f"{folder}/pim") as store:
                for name in ("contacts.vcf", "calendar.ics", "mail.mbox"):
                    import_file(store, f"{folder}/{name}")
                take(browser, store, VIEWS, target)
            with Store(f"{folder}/nora") as store:
                fill(store)
                take(browser, store, PERSONAL, target)
            browser.close()


def take(browser: Any, store: Store, views: dict[str, Callable[[Any, str, Store], None]], target: Path) -> None:
    """The pictures of these views of one store."""
    with serve_in_thread(store, port=0) as server:
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=SIZE, color_scheme=scheme, timezone_id="Europe/Zurich")
            page = context.new_page()
            page.goto(server.url)
            page.wait_for_url("**/pools")
            for name, show in views.items():
                show(page, server.base, store)
                page.get_by_text("Up to date").wait_for(state="attached")
                page.screenshot(path=target / f"browser-{name}-{scheme}.png")
            context.close()


if __name__ == "__main__":
    main()
