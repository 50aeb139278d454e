"""Conflicts: what could not be merged when devices that had been apart met again, kept to be settled.

    for conflict in store.conflicts:
        print(conflict.about, conflict.attribute, conflict.kept, conflict.other)
        store.conflicts.settle(conflict, "other")

Each conflict is an item of the pool "conflicts". The store has `kept` already; `other` is the value that gave way.
Settling is a transaction like any other: it may be undone, and travels to all devices. To settle one that another
device has settled does nothing, and two devices that settle one while they are apart make no new one.

`ConflictItem` is not the error `atop.Conflict`, which a transaction raises. Records call it "atop.Conflict".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from atop.errors import NoSuchItem
from atop.indexes import prefix_of
from atop.item import Item, class_named
from atop.pool import Pool
from atop.records import State
from atop.transaction import active
from atop.values import to_stored
from atop.writeset import INDEX

if TYPE_CHECKING:
    from atop.store import Store

CONFLICT_TYPE = "atop.Conflict"
POOL_NAME = "conflicts"

Side = Literal["kept", "other", "mine", "theirs"]

_UNSET: Any = object()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 253_402_214_400_000_000  # microseconds: as `journal.LATEST`


class ConflictItem(Item, type_name=CONFLICT_TYPE):
    """Two values for one thing, made on two devices that were apart.

    `kind` says what it is about:

    - "value": an attribute that both changed. `kept` is what the item has (or had then), `other` what it has not.
    - "deleted": an item that one device deleted and another changed. It stays; "other" is to delete it.
    - "name": a name that `Store.set_root` gave to two items; `attribute` is "root/" and the name.
    - "item": an item as a whole, where attributes could not be told apart; `other` is a dict of all of them.
    """

    kind: str = "value"
    about: int = 0  # id of the item, which may be gone by now
    attribute: str = ""
    item_type: str = ""  # type name and version of the item's class
    item_schema: int = 1
    kept: Any = None
    kept_there: bool = True  # False where the attribute was removed
    kept_device: int | None = None  # tag of the device that made the value; None where that is not known any more
    kept_time: int | None = None  # when, in microseconds since 1970, by the hybrid clock
    other: Any = None
    other_there: bool = True
    other_device: int | None = None
    other_time: int | None = None
    commit: int = 0  # id of the commit that met the other side

    @property
    def item(self) -> Any:
        """The item that it is about, or None if that is gone."""
        return self._store._objects.find(self.about)

    @property
    def kept_at(self) -> datetime | None:
        """When the value was made that was kept."""
        return _moment(self.kept_time)

    @property
    def other_at(self) -> datetime | None:
        """When the other value was made."""
        return _moment(self.other_time)


class Conflicts:
    """The conflicts of one store, as `store.conflicts`. May be used by any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __iter__(self) -> Iterator[ConflictItem]:
        """The open conflicts, oldest first."""
        pool = self._pool()
        if pool is not None:
            yield from (item for item in pool if isinstance(item, ConflictItem))

    def __len__(self) -> int:
        pool = self._pool()
        return len(pool) if pool is not None else 0

    def of(self, item: Item) -> list[ConflictItem]:
        """The open conflicts about one item."""
        return [conflict for conflict in self if conflict.about == item.item_id]

    def settle(self, conflict: ConflictItem | int, keep: Side = "kept", *, value: Any = _UNSET) -> bool:
        """Settle a conflict, given as such or by its id; returns False if it had been settled before.

        Args:
            conflict: the conflict.
            keep: "kept" leaves things as they are, "other" puts the other value in place; "mine" and "theirs" say the
                same by which of the two this device made.
            value: what the attribute is to be instead of either.

        Raises:
            ValueError: neither value was made on this device, or both were; or there is no attribute to give `value`.
            NoSuchItem: the item is gone, so nothing can be given to it; settle with "kept".
        """
        conflict_id = conflict if isinstance(conflict, int) else conflict.item_id

        def settle() -> bool:
            found = self._store._objects.find(conflict_id)
            if not isinstance(found, ConflictItem):
                return False
            if value is not _UNSET:
                self._give(found, value)
            elif self._side(found, keep) == "other":
                self._put_other(found)
            found.delete()
            return True

        return self._store.transact(settle, label=f"settle conflict {conflict_id}")

    def _pool(self) -> Pool | None:
        pool_id = self._store._named_pool_id(POOL_NAME)
        return self._store._pool_by_id(pool_id) if pool_id is not None else None

    def _side(self, conflict: ConflictItem, keep: str) -> str:
        if keep in ("kept", "other"):
            return keep
        if keep not in ("mine", "theirs"):
            raise ValueError(f"keep is kept, other, mine or theirs, not {keep!r}")
        own = self._store._tenure.tag
        sides = [s for s, device in (("kept", conflict.kept_device), ("other", conflict.other_device)) if device == own]
        if len(sides) != 1:
            raise ValueError(
                f"which value of conflict {conflict.item_id} is this device's cannot be said: choose kept or other"
            )
        return sides[0] if keep == "mine" else {"kept": "other", "other": "kept"}[sides[0]]

    def _put_other(self, conflict: ConflictItem) -> None:
        if conflict.kind == "deleted":
            item = conflict.item
            if item is not None:
                item.delete()
        elif conflict.kind == "name":
            self._store.set_root(conflict.attribute.removeprefix("root/"), conflict.other)
        elif conflict.kind == "item":
            self._put_whole(conflict)
        elif conflict.other_there:
            self._give(conflict, conflict.other)
        else:
            attributes = self._attributes(conflict)
            attributes.pop(conflict.attribute, None)

    def _give(self, conflict: ConflictItem, value: Any) -> None:
        if conflict.kind != "value":
            raise ValueError(
                f"conflict {conflict.item_id} is not about the value of an attribute: choose kept or other"
            )
        stored = to_stored(value, conflict.attribute, self._store)
        self._attributes(conflict)[conflict.attribute] = stored

    def _attributes(self, conflict: ConflictItem) -> dict[str, Any]:
        """The attributes of the item, to be changed: also where its class is not imported."""
        item = conflict.item
        if item is None:
            raise NoSuchItem(
                conflict.about, f"item {conflict.about} is gone: settle conflict {conflict.item_id} as kept"
            )
        transaction = active(self._store)
        attributes: dict[str, Any] = transaction.entry(item).attributes
        transaction.views.get(item._id, {}).pop(conflict.attribute, None)
        return attributes

    def _put_whole(self, conflict: ConflictItem) -> None:
        """Give an item all of its other attributes; make it again, if it is gone."""
        transaction = active(self._store)
        other = {str(name): to_stored(v, str(name), self._store) for name, v in dict(conflict.other).items()}
        item = conflict.item
        if item is not None:
            transaction.entry(item).attributes = other
            transaction.views.pop(item._id, None)
            return
        cls = class_named(conflict.item_type)
        if cls is None or cls._schema < conflict.item_schema:
            cls = Item
        made = self._store._objects.object_for(cls, conflict.about)
        state = made._adapt(State(0, conflict.item_type, conflict.item_schema, other, ()))
        transaction.restore(made, conflict.item_type, state.schema, state.attributes, 0)


def _moment(time: int | None) -> datetime | None:
    return None if time is None else _EPOCH + timedelta(microseconds=min(time, _LATEST))


def open_about(engine: Any, pool_id: int, indexes: dict[str, Any], about: int) -> list[int]:
    """The ids of the conflicts of this pool about an item: by its index, or else of all that it has."""
    from atop.keys import encode

    number = next((d[0] for d in indexes.values() if d[1] == ("about",) and d[4] == "ready"), None)
    start = prefix_of(pool_id, 0) if number is None else prefix_of(pool_id, number) + encode(about)
    found: list[int] = []
    while keys := engine.keys(INDEX, start, start[:10] + b"\xff" * 16 if number is None else start + b"\xff" * 9, 500):
        found += [int.from_bytes(key[-8:]) for key in keys]
        start = keys[-1] + b"\0"
    return found
