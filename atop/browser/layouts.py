"""How each pool's table is laid out, remembered on this device: columns, their widths, the order.

Kept in the store's `local/browser.json`, which is not replicated: a phone and a desktop are not laid out alike.
A file that cannot be read is as good as none; it is never more than a matter of taste.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

from atop.browser.views import Refusal, checked_text
from atop.disk import explained, write_durably

log = logging.getLogger(__name__)

FILE = "browser.json"
MAX_POOLS = 500
MAX_COLUMNS = 60
LONGEST_NAME = 300
NARROWEST, WIDEST = 40, 2_000  # pixels


class Layouts:
    """The layouts of one store. May be used by any thread."""

    def __init__(self, local: Path) -> None:
        self._path = local / FILE
        self._lock = threading.Lock()
        self._layouts: dict[str, Any] | None = None

    def _load(self) -> dict[str, Any]:
        if self._layouts is None:
            self._layouts = {}
            try:
                found = json.loads(self._path.read_text("utf-8"))
                if isinstance(found, dict):
                    self._layouts = {key: checked(value) for key, value in list(found.items())[:MAX_POOLS]}
            except FileNotFoundError:
                pass  # nothing has been laid out yet
            except (OSError, ValueError, RecursionError, Refusal) as error:
                log.warning("%s is not used: %s", self._path, error)
        return self._layouts

    def get(self, pool_id: int) -> dict[str, Any] | None:
        """The layout of a pool, or None."""
        with self._lock:
            found: dict[str, Any] | None = self._load().get(str(pool_id))
            return found

    def put(self, pool_id: int, layout: dict[str, Any]) -> None:
        """Remember a layout. Raises Refusal for what is none, StoreFull, StoreReadOnly."""
        layout = checked(layout)
        with self._lock:
            layouts = self._load()
            layouts.pop(str(pool_id), None)
            while len(layouts) >= MAX_POOLS:
                layouts.pop(next(iter(layouts)))
            layouts[str(pool_id)] = layout
            try:
                write_durably(self._path, json.dumps(layouts).encode(), 0o600)
            except OSError as error:
                raise explained(error, self._path) from error


def checked(layout: Any) -> dict[str, Any]:
    """A layout as it is kept. Raises Refusal."""
    if not isinstance(layout, dict):
        raise Refusal(400, "A layout is an object.")
    columns = layout.get("columns", [])
    if not isinstance(columns, list) or len(columns) > MAX_COLUMNS:
        raise Refusal(400, f"A layout has a list of {MAX_COLUMNS} columns at most.")
    kept = []
    for column in columns:
        if not isinstance(column, dict) or not isinstance(column.get("name"), str):
            raise Refusal(400, "A column of a layout has a name.")
        if len(column["name"]) > LONGEST_NAME:
            raise Refusal(400, f"The name of a column has {LONGEST_NAME} characters at most.")
        width = column.get("width")
        if width is not None and (type(width) is not int or not NARROWEST <= width <= WIDEST):
            raise Refusal(400, f"The width of a column is from {NARROWEST} to {WIDEST} pixels.")
        kept.append({"name": checked_text(column["name"], "name"), "width": width})
    index = layout.get("index")
    if index is not None and (type(index) is not str or len(index) > LONGEST_NAME):
        raise Refusal(400, "The index of a layout is its name.")
    return {"columns": kept, "index": index, "reverse": layout.get("reverse") is True}
