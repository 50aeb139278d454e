"""Lists beside a pane: how mail, contacts and notes read a part of a pool, and find words in it."""

from __future__ import annotations

from typing import Any

from atop import Item, NoSuchIndex, NoSuchPool, Pool, UnstorableValue
from atop.browser.views import Call, Refusal

# Most items that a search gives, and most rows in one answer.
MAX_FOUND = 1_000
MAX_ROWS = 600

END = b"\xff" * 24  # behind every key


def pool_named(call: Call, name: str) -> Pool | None:
    """The pool of this name, or None."""
    try:
        return call.store.pool(name, create=False)
    except NoSuchPool:
        return None


def search(pool: Pool, words: str) -> list[Item]:
    """Items with all these words, the last of which may be a beginning; none where no index has words."""
    text = words.strip()
    try:
        return list(pool.search(text if text.endswith("*") else f"{text}*", limit=MAX_FOUND))
    except (NoSuchIndex, UnstorableValue):
        return []


def order(pool: Pool, wanted: str) -> str:
    """The index `wanted`, or another that is there; "" where the pool has none that orders."""
    ready = [name for name, definition in pool.indexes.items() if not definition.words and definition.state == "ready"]
    return wanted if wanted in ready else next(iter(ready), "")


def place(call: Call, name: str) -> bytes:
    """A place in a list, as an earlier answer gave it. Raises Refusal."""
    try:
        return bytes.fromhex(call.text(name, 600))
    except ValueError:
        raise Refusal(400, "This is no place in the list.") from None


def newest(pool: Pool, index: str, after: bytes, count: int) -> tuple[list[Any], bytes | None]:
    """Items from the end of an index, or from a place in it, backwards; and the place of those that come then."""
    found = pool.page(index, count, before=after or END)
    return found.items[::-1], found.previous


def slice_of(
    call: Call, items: list[Item], count: int, query: dict[str, str]
) -> tuple[list[Item], dict[str, str] | None]:
    """The part of what was found that is asked for, and the query for the part after it."""
    start = call.number("from", 0, 0, MAX_FOUND)
    rest = {**query, "from": str(start + count)} if len(items) > start + count else None
    return items[start : start + count], rest
