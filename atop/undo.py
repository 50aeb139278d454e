"""Undoing a commit with a new one.

What later commits did to other attributes, and to other items, stays. Where a later commit changed the very thing that
is to be undone, nothing is changed and `UndoRefused` names that commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from atop.errors import Restricted, UndoRefused
from atop.item import Item, class_named
from atop.journal import Change, Commit, Revision
from atop.pool import Pool
from atop.records import State
from atop.transaction import Transaction, active, without
from atop.values import Reference, walk
from atop.writeset import INDEX_ATTRIBUTES, ROOTS, same

if TYPE_CHECKING:
    from atop.store import Store


def undo(store: Store, commit: Commit) -> None:
    """Undo `commit`, in the current transaction. Raises `UndoRefused`."""
    transaction = active(store)
    if not (commit.changes or commit.names):
        raise UndoRefused(f"commit {commit.number} ({commit.label!r}) changed no item: there is nothing to undo")
    for item_id in commit.item_ids:
        if item_id in transaction.entries:
            raise UndoRefused(
                f"commit {commit.number} ({commit.label!r}) cannot be undone in a transaction that has changed "
                f"item {item_id} itself: undo it outside of that"
            )
    work = _Undo(store, transaction, commit)
    work.read_names()
    for change in commit.changes:
        if change.kind == "deleted":
            work.restore(change)
    work.mend_restored()
    for change in commit.changes:
        if change.kind == "changed":
            work.revert(change)
    work.delete([change.item_id for change in commit.changes if change.kind == "created"])
    work.finish()
    work.give_names_back()


class _Undo:
    def __init__(self, store: Store, transaction: Transaction, commit: Commit) -> None:
        self._store = store
        self._transaction = transaction
        self._commit = commit
        self._restored: list[Item] = []
        self._names: dict[str, int | None] = {}  # the names to be given back, and what they stood for

    def restore(self, change: Change) -> None:
        """Bring a deleted item back."""
        if self._store._objects.find(change.item_id) is not None:
            self._refuse(f"item {change.item_id} is there again")
        type_name, schema = change.schema or ("", 0)  # every deletion has it
        cls = class_named(type_name)
        if cls is None or cls._schema < schema:
            cls = Item
        item = self._store._objects.object_for(cls, change.item_id)
        state = item._adapt(State(0, type_name, schema, dict(change.before), ()))
        self._transaction.restore(item, type_name, state.schema, state.attributes, self._commit.commit_id)
        self._transaction.set_pools(item, change.pools or ())
        self._restored.append(item)

    def mend_restored(self) -> None:
        """Drop what the restored items refer to that is gone for good."""
        for item in self._restored:
            entry = self._transaction.entry(item)
            entry.pools = tuple(p for p in entry.pools if self._is_pool(p))
            for name, value in entry.attributes.items():
                entry.attributes[name] = self._without_missing(value)

    def revert(self, change: Change) -> None:
        """Give an item's attributes the values that they had before."""
        item = self._store._objects.find(change.item_id)
        if item is None:
            self._refuse(f"item {change.item_id} has been deleted since")
        names = {*change.before, *change.added}
        if isinstance(item, Pool) and names & INDEX_ATTRIBUTES:
            self._refuse(
                "it changed the indexes of a pool: change them with add_index and drop_index (in atop shell, say)"
            )
        self._check_untouched(item, names)
        state = item._state or item._load()
        raw = state.raw or state
        attributes = {n: v for n, v in raw.attributes.items() if n not in change.added}
        attributes.update({n: self._without_missing(v) for n, v in change.before.items()})
        type_name, schema = change.schema or (raw.type_name, raw.schema)
        before = item._adapt(State(0, type_name, schema, attributes, ()))
        if before.schema != state.schema:
            self._refuse(f"it upgraded item {item.item_id}, a {type_name}, which this program has not imported")
        for name in change.added:  # read with its default again, and so it is to stand in the indexes
            if (default := type(item)._defaults.get(name)) is not None:
                before.attributes.setdefault(name, default)
        self._transaction.entry(item).attributes = before.attributes
        self._transaction.views.pop(item._id, None)
        if change.pools is not None:
            after = self._pools_after(state.pools, self._since(item)[0], item.item_id)
            pools = set(state.pools)
            pools -= set(after) - set(change.pools)
            pools |= {p for p in set(change.pools) - set(after) if self._is_pool(p)}
            self._transaction.set_pools(item, tuple(sorted(pools)))

    def delete(self, item_ids: list[int]) -> None:
        """Delete the items that the commit created, which may refer to each other."""
        items = [item for item in map(self._store._objects.find, item_ids) if item is not None]
        for item in items:
            self._check_as_created(item)
        try:
            self._transaction.delete(*items)
        except Restricted as error:
            self._refuse(str(error))

    def read_names(self) -> None:
        """See which names the commit gave or took; refuse if one of them was given or taken since."""
        for name, old, new in self._commit.names:
            if not name.encode().startswith(ROOTS):
                continue  # those of pools go and come back with them
            now, shown = self._transaction.named(name), name.removeprefix(ROOTS.decode())
            if now == old:
                continue
            if now == new:
                self._names[name] = old
            elif new is not None:
                done = "taken away" if now is None else "given to another item"
                self._refuse(f"the name {shown!r} was {done} since")

    def give_names_back(self) -> None:
        """Have the names stand for what they stood for before."""
        for name, old in self._names.items():
            if old is not None and self._store._objects.find(old) is None:
                self._refuse(f"item {old}, which {name.removeprefix(ROOTS.decode())!r} stood for, has been deleted")
            self._transaction.name(name, old)

    def finish(self) -> None:
        """Let restored items take back what the created ones had taken over, such as a name."""
        for item in self._restored:
            item._after_restore(self._transaction)

    def _check_as_created(self, item: Item) -> None:
        """Refuse if an item that the commit created has been changed since."""
        later, own = self._since(item)
        pools = (item._state or item._load()).pools
        if later and (
            own is None
            or not same(dict(own.attributes), dict(later[0].attributes))
            or pools != self._pools_after(pools, later, item.item_id)
        ):
            self._refuse(
                f"item {item.item_id} was changed since by commit {later[0].commit.number} "
                f"({later[0].commit.label!r}): undo that first"
            )
        if isinstance(item, Pool) and any(member._id not in self._commit.item_ids for member in item):
            self._refuse(f"{item._called()} has items that were added since: take those out first")

    def _check_untouched(self, item: Item, names: set[str]) -> None:
        """Refuse if a commit after this one changed any of these attributes."""
        later, own = self._since(item)
        now = item._state or item._load()
        schema = (now.raw or now).schema
        for revision in later:
            before = _change_of(revision, item.item_id).schema
            if before is not None and before[1] != schema:
                self._refuse(
                    f"item {item.item_id} was upgraded since by commit {revision.commit.number} "
                    f"({revision.commit.label!r}): change it by hand"
                )
            both = names & revision.changed.keys()
            if own is not None:  # what was changed and changed back is as the commit left it
                both = {n for n in both if not same(_value(own, n), _value(later[0], n))}
            if both:
                self._refuse(
                    f"{', '.join(sorted(both))} of item {item.item_id} was changed since by commit "
                    f"{revision.commit.number} ({revision.commit.label!r}): undo that first"
                )

    def _since(self, item: Item) -> tuple[list[Revision], Revision | None]:
        """The item's revisions after the commit, latest first, and the commit's own, if the journal still has it."""
        later: list[Revision] = []
        for revision in item.history():
            if revision.commit.commit_id == self._commit.commit_id:
                return later, revision
            later.append(revision)
        return later, None

    @staticmethod
    def _pools_after(pools: tuple[int, ...], later: list[Revision], item_id: int) -> tuple[int, ...]:
        """The pools that the commit left an item in which is in `pools` now."""
        for revision in later:
            before = _change_of(revision, item_id).pools
            if before is not None:
                pools = before
        return pools

    def _without_missing(self, value: Any) -> Any:
        for inner in list(walk(value)):
            if type(inner) is Reference and self._store._objects.find(inner.item_id) is None:
                value = without(value, inner.item_id)
        return value

    def _is_pool(self, item_id: int) -> bool:
        return isinstance(self._store._objects.find(item_id), Pool)

    def _refuse(self, why: str) -> NoReturn:
        raise UndoRefused(f"commit {self._commit.number} ({self._commit.label!r}) cannot be undone: {why}")


_MISSING = object()


def _value(revision: Revision, name: str) -> object:
    return revision.attributes.get(name, _MISSING)


def _change_of(revision: Revision, item_id: int) -> Change:
    """What the revision's commit did to the item whose revision it is."""
    return next(change for change in revision.commit.changes if change.item_id == item_id)
