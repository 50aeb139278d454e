"""Lists, dicts and sets that tell the store when they are changed in place.

What an attribute returns for a stored list, dict or set is one of these, at every depth of nesting. They are a list, a
dict and a set in all respects; a change runs in the current transaction, or in one of its own.

Promises: a change that cannot be stored (the type of a value, a transaction that fails) leaves the container as it
was. A container that no longer shows what its attribute holds, because someone else changed that meanwhile, refuses
to be changed with `Conflict`; it never overwrites what it has not seen.

What is put into one is copied, as in an assignment to an attribute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar

from atop.errors import Conflict
from atop.values import FileInfo, Reference, to_stored

if TYPE_CHECKING:
    from atop.item import Item
    from atop.transaction import Transaction

T = TypeVar("T")


_taking = threading.Lock()


class Root:
    """Where a container hangs: the attribute `name` of `item`, whose value is the outermost container `top`."""

    __slots__ = ("_owner", "item", "name", "top")

    def __init__(self, item: Item, name: str) -> None:
        self.item = item
        self.name = name
        self.top: Any = None
        self._owner: Transaction | None = None  # the transaction that changes it, while that is open

    def take(self, transaction: Transaction) -> None:
        """Let `transaction` alone change what is below this root. Raises `Conflict` if another one is doing so."""
        with _taking:
            if self._owner is not None and self._owner is not transaction and self._owner.open:
                raise Conflict(
                    f"item {self.item._id}: another transaction is changing this {self.name}: read the attribute again",
                    self.item._id,
                )
            self._owner = transaction

    def change(self, operate: Callable[[], T]) -> T:
        """Run `operate`, which changes a container below this root, as part of a transaction."""
        return self.item._change_container(self, operate)

    def live(self, value: Any) -> Any:
        """The live form, below this root, of a copy of `value`."""
        return to_live(to_stored(value, f"attribute {self.name!r}", self.item._store), self)


def present(stored: Any, item: Item, name: str) -> Any:
    """The live form of the stored value that the attribute `name` of `item` holds."""
    root = Root(item, name)
    root.top = to_live(stored, root)
    return root.top


def to_live(stored: Any, root: Root) -> Any:
    """The live form of a stored value: tracked containers, items for references, files for their descriptions."""
    kind = type(stored)
    if kind is list:
        return TrackedList(root, [to_live(v, root) for v in stored])
    if kind is dict:
        return TrackedDict(root, {to_live(k, root): to_live(v, root) for k, v in stored.items()})
    if kind is set:
        return TrackedSet(root, {to_live(v, root) for v in stored})
    if kind is tuple:
        return tuple(to_live(v, root) for v in stored)
    if kind is frozenset:
        return frozenset(to_live(v, root) for v in stored)
    if kind is Reference or kind is FileInfo:
        return root.item._live_value(stored)
    return stored


def contents_below(top: Any) -> list[tuple[Any, Any]]:
    """Every container in and below `top`, each with a plain copy of what it holds now, for `put_back`."""
    found: list[tuple[Any, Any]] = []
    waiting = [top]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is TrackedList:
            found.append((value, list(value)))
            waiting.extend(value)
        elif kind is TrackedDict:
            found.append((value, dict(value)))
            waiting.extend(value.values())
        elif kind is TrackedSet:
            found.append((value, set(value)))  # what can be hashed has no containers in it
        elif kind is tuple:
            waiting.extend(value)
    return found


def put_back(contents: list[tuple[Any, Any]]) -> None:
    """Have containers hold again what `contents_below` found in them: the same objects, at every depth."""
    for container, values in contents:
        container._refill(values)


class TrackedList(list[Any]):
    """A list that is the value, or part of the value, of an item's attribute."""

    __slots__ = ("_root",)
    __hash__ = None

    def __init__(self, root: Root, values: Iterable[Any]) -> None:
        super().__init__(values)
        self._root = root

    def _refill(self, values: list[Any]) -> None:
        super().__setitem__(slice(None), values)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (list(self),)

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(index, slice):
            value = list(value)
        value = self._root.live(value)
        self._root.change(lambda: super(TrackedList, self).__setitem__(index, value))

    def __delitem__(self, index: Any) -> None:
        self._root.change(lambda: super(TrackedList, self).__delitem__(index))

    def __iadd__(self, values: Iterable[Any]) -> TrackedList:  # type: ignore[misc]  # as in typeshed
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> TrackedList:
        self[:] = list(self) * times
        return self

    def append(self, value: Any) -> None:
        """As `list.append`."""
        value = self._root.live(value)
        self._root.change(lambda: super(TrackedList, self).append(value))

    def extend(self, values: Iterable[Any]) -> None:
        """As `list.extend`."""
        values = self._root.live(list(values))
        self._root.change(lambda: super(TrackedList, self).extend(values))

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """As `list.insert`."""
        value = self._root.live(value)
        self._root.change(lambda: super(TrackedList, self).insert(index, value))

    def pop(self, index: SupportsIndex = -1) -> Any:
        """As `list.pop`."""
        return self._root.change(lambda: super(TrackedList, self).pop(index))

    def remove(self, value: Any) -> None:
        """As `list.remove`."""
        self._root.change(lambda: super(TrackedList, self).remove(value))

    def clear(self) -> None:
        """As `list.clear`."""
        self._root.change(super().clear)

    def reverse(self) -> None:
        """As `list.reverse`."""
        self._root.change(super().reverse)

    def sort(self, *, key: Any = None, reverse: bool = False) -> None:
        """As `list.sort`."""
        self[:] = sorted(self, key=key, reverse=reverse)


class TrackedDict(dict[Any, Any]):
    """A dict that is the value, or part of the value, of an item's attribute."""

    __slots__ = ("_root",)
    __hash__ = None

    def __init__(self, root: Root, values: dict[Any, Any]) -> None:
        super().__init__(values)
        self._root = root

    def _refill(self, values: dict[Any, Any]) -> None:
        super().clear()
        super().update(values)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: Any) -> None:
        self._root.change(lambda: super(TrackedDict, self).__delitem__(key))

    def __ior__(self, other: Any) -> TrackedDict:  # type: ignore[misc]  # as in typeshed
        self.update(other)
        return self

    def update(self, *others: Any, **named: Any) -> None:
        """As `dict.update`."""
        values = self._root.live(dict(*others, **named))
        self._root.change(lambda: super(TrackedDict, self).update(values))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """As `dict.setdefault`."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: Any, *default: Any) -> Any:
        """As `dict.pop`."""
        return self._root.change(lambda: super(TrackedDict, self).pop(key, *default))

    def popitem(self) -> tuple[Any, Any]:
        """As `dict.popitem`."""
        return self._root.change(super().popitem)

    def clear(self) -> None:
        """As `dict.clear`."""
        self._root.change(super().clear)


class TrackedSet(set[Any]):
    """A set that is the value, or part of the value, of an item's attribute."""

    __slots__ = ("_root",)
    __hash__ = None

    def __init__(self, root: Root, values: Iterable[Any]) -> None:
        super().__init__(values)
        self._root = root

    def _refill(self, values: set[Any]) -> None:
        super().clear()
        super().update(values)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return set, (set(self),)

    def __repr__(self) -> str:
        return repr(set(self))

    def __ior__(self, other: Any) -> TrackedSet:  # type: ignore[misc]  # as in typeshed
        self.update(other)
        return self

    def __iand__(self, other: Any) -> TrackedSet:  # type: ignore[misc]  # as in typeshed
        self.intersection_update(other)
        return self

    def __isub__(self, other: Any) -> TrackedSet:  # type: ignore[misc]  # as in typeshed
        self.difference_update(other)
        return self

    def __ixor__(self, other: Any) -> TrackedSet:  # type: ignore[misc]  # as in typeshed
        self.symmetric_difference_update(other)
        return self

    def add(self, value: Any) -> None:
        """As `set.add`."""
        self.update((value,))

    def update(self, *others: Iterable[Any]) -> None:
        """As `set.update`."""
        values = self._root.live(set().union(*others))
        self._root.change(lambda: super(TrackedSet, self).update(values))

    def discard(self, value: Any) -> None:
        """As `set.discard`."""
        self._root.change(lambda: super(TrackedSet, self).discard(value))

    def remove(self, value: Any) -> None:
        """As `set.remove`."""
        self._root.change(lambda: super(TrackedSet, self).remove(value))

    def pop(self) -> Any:
        """As `set.pop`."""
        return self._root.change(super().pop)

    def clear(self) -> None:
        """As `set.clear`."""
        self._root.change(super().clear)

    def intersection_update(self, *others: Iterable[Any]) -> None:
        """As `set.intersection_update`."""
        self._root.change(lambda: super(TrackedSet, self).intersection_update(*others))

    def difference_update(self, *others: Iterable[Any]) -> None:
        """As `set.difference_update`."""
        self._root.change(lambda: super(TrackedSet, self).difference_update(*others))

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        """As `set.symmetric_difference_update`."""
        values = self._root.live(set(other))
        self._root.change(lambda: super(TrackedSet, self).symmetric_difference_update(values))


TRACKED: frozenset[type] = frozenset({TrackedList, TrackedDict, TrackedSet})
