"""The spellings of 2004, from the talk "ATOP: simple but powerful persistence using Python and BSDDB".

They are thin: each says what today's name is. `Store` and `Pool` inherit them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atop.item import Item

_UNSET: Any = object()


class ClassicStore:
    """The spellings of 2004 of `Store`."""

    def getItemByID(self, itemID: int) -> Any:  # noqa: N802, N803 - the names are the point
        """As `Store.get`."""
        return self.get(itemID)  # type: ignore[attr-defined]  # of Store

    def batch(self, label: str = "") -> Any:
        """As `Store.transaction`."""
        return self.transaction(label)  # type: ignore[attr-defined]  # of Store


class ClassicPool:
    """The spellings of 2004 of `Pool`."""

    __slots__ = ()

    def addItem(self, item: Item) -> None:  # noqa: N802
        """As `Pool.add`."""
        self.add(item)  # type: ignore[attr-defined]  # of Pool

    def removeItem(self, item: Item) -> None:  # noqa: N802
        """As `Pool.remove`."""
        self.remove(item)  # type: ignore[attr-defined]  # of Pool

    def addIndex(self, name: str) -> None:  # noqa: N802
        """As `Pool.add_index`."""
        self.add_index(name)  # type: ignore[attr-defined]  # of Pool

    def queryIndex(  # noqa: N802
        self,
        index: str,
        startKey: Any = _UNSET,  # noqa: N803
        endKey: Any = _UNSET,  # noqa: N803
        backwards: bool = False,
    ) -> Iterator[Any]:
        """As `Pool.query`, from `startKey` up to, and not including, `endKey`; `backwards` from the end."""
        bounds = {name: key for name, key in (("start", startKey), ("end", endKey)) if key is not _UNSET}
        return self.query(index, reverse=backwards, **bounds)  # type: ignore[attr-defined,no-any-return]  # of Pool

    def getIndexItem(self, index: str, key: Any) -> Any:  # noqa: N802
        """The first item with this key, or None."""
        return next(self.query(index, key=key, limit=1), None)  # type: ignore[attr-defined]  # of Pool
