"""Changes that a person makes: edits, new items, deletions, undo. Each is one transaction.

An edit brings the version of the item that the page has shown. If another commit has changed the same attributes since,
nothing is written and the answer is 409 with the values that the item has now; what it changed of others is kept.
Every answer names the commit, so that it can be undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from atop import AtopError, Item, Pool, Store
from atop.browser.cells import cell, integer_text, item_label, stored_of
from atop.browser.reading import read_value
from atop.browser.views import Call, Refusal, View, action, checked_text
from atop.item import class_named

# Items that one request changes: one transaction has room for them.
MAX_AT_ONCE = 10_000
# Revisions looked through to find what has changed since a version.
MAX_REVISIONS = 500
# Commits looked through to find the one just made.
RECENT = 200
MAX_ATTRIBUTES = 500
LONGEST_NAME = 300


def describe(item: Item) -> dict[str, Any]:
    """An item as JSON: all attributes as cells."""
    store = item._store
    return {
        "id": str(item.item_id),
        "version": str(item.version),
        "type": item.type_name,
        "label": item_label(item),
        "fixed": is_fixed(item),
        "attributes": {name: cell(store, value) for name, value in stored_of(item).items()},
        "pools": [{"id": str(pool.item_id), "name": pool.name} for pool in item.pools],
    }


def is_fixed(item: Item) -> bool:
    """Whether an item cannot be changed here: its class is not imported, or it is a pool."""
    return class_named(item.type_name) is not type(item) or isinstance(item, Pool)


def find(call: Call) -> Item:
    """The item that the path names."""
    item: Item = call.store.get(call.path["item_id"])
    return item


def changed_since(item: Item, version: int) -> set[str] | None:
    """The attributes that commits after `version` changed; None if the history does not tell."""
    if item.version == version:
        return set()
    names: set[str] = set()
    for revision in item.history(limit=MAX_REVISIONS):
        if revision.commit.commit_id == version:
            return names
        names.update(revision.changed)
    return None


def commit_with(store: Store, item_id: int, label: str) -> str | None:
    """The id of the latest commit with this label that changed this item."""
    for commit in store.history(limit=RECENT):
        if commit.label == label and item_id in commit.item_ids:
            return str(commit.commit_id)
    return None


def sent_values(call: Call) -> dict[str, Any]:
    """The attributes that the body sets. Raises Refusal, naming the first that cannot be read."""
    sent = call.field("set", dict, {})
    if len(sent) > MAX_ATTRIBUTES:
        raise Refusal(400, f"An item has {MAX_ATTRIBUTES} attributes at most here.")
    values = {}
    for name, value in sent.items():
        check_name(name)
        try:
            values[name] = read_value(call.store, value)
        except ValueError as error:
            raise Refusal(422, str(error), name=name) from None
    return values


def check_name(name: Any) -> str:
    """The name of an attribute. Raises Refusal for what cannot be one."""
    if type(name) is not str or not name.strip() or len(name) > LONGEST_NAME:
        raise Refusal(422, f"An attribute has a name of at most {LONGEST_NAME} characters.", name=str(name)[:40])
    if name.startswith("_"):
        raise Refusal(422, "A name that begins with an underscore is not stored: choose another.", name=name)
    return checked_text(name, "The name")


def assign(item: Item, values: Mapping[str, Any], removed: Iterable[str] = ()) -> None:
    """Set and remove attributes, in the current transaction. Raises Refusal for names that are the class's own."""
    if isinstance(item, Pool):
        raise Refusal(409, "A pool is changed on its own page.")
    for name, value in values.items():
        try:
            if not type(item)._stores(name):
                raise Refusal(422, f"{name} is worked out by the program, and cannot be set here.", name=name)
            setattr(item, name, in_zone(value, item._read().get(name)))
        except AttributeError as error:
            raise Refusal(422, f"This name cannot be used: {error}.", name=name) from None
    for name in removed:
        if name in item._read() and type(item)._stores(name):
            delattr(item, name)


def in_zone(value: Any, before: Any) -> Any:
    """A time as it was typed, in the named zone of the one that it takes the place of, where that is the same time.

    A text of a time says only how far its zone is from UTC.
    """
    if not (isinstance(value, datetime) and isinstance(before, datetime) and isinstance(before.tzinfo, ZoneInfo)):
        return value
    for fold in (0, 1):  # in the hour that a clock repeats, the offset says which of the two is meant
        zoned = value.replace(tzinfo=before.tzinfo, fold=fold)
        if value.tzinfo is None or zoned.utcoffset() == value.utcoffset():
            return zoned
    return value


def removed_names(call: Call) -> list[str]:
    """The attributes that the body removes."""
    return [check_name(name) for name in call.field("remove", list, [])[:MAX_ATTRIBUTES]]


def change_item(call: Call) -> Any:
    """PATCH /api/items/ID: `{"version": "12", "set": {...}, "remove": [...]}`."""
    store, item = call.store, find(call)
    version = call.body.get("version")
    if type(version) is not str or not (version.isascii() and version.isdigit() and len(version) <= 19):
        raise Refusal(400, "The body needs the version of the item that it changes, as text.")
    values, removed = sent_values(call), removed_names(call)
    names = {*values, *removed}
    label = f"change {', '.join(sorted(names))[:80]} of {item_label(item)[:60]}"

    def change() -> None:
        clash = changed_since(item, int(version))
        both = names if clash is None else names & clash
        if both:
            raise Refusal(
                409,
                f"{', '.join(sorted(both))} was changed elsewhere meanwhile.",
                changed=sorted(both),
                item=describe(item),
            )
        assign(item, values, removed)

    before = item.version
    store.transact(change, label=label)
    after = describe(item)
    return {"item": after, "commit": after["version"] if after["version"] != str(before) else None}


def show_item(call: Call) -> Any:
    """GET /api/items/ID."""
    return {"item": describe(find(call))}


def show_value(call: Call) -> Any:
    """GET /api/items/ID/value?name=NAME: an attribute with its whole text."""
    item = find(call)
    attributes = stored_of(item)
    name = call.text("name")
    if name not in attributes:
        raise Refusal(404, f"{item_label(item)} has no attribute of this name.")
    return {"version": str(item.version), "value": cell(call.store, attributes[name], 1 << 30)}


def ids_in(call: Call) -> list[int]:
    """The ids that the body lists. Raises Refusal."""
    ids = call.field("ids", list)
    if not 0 < len(ids) <= MAX_AT_ONCE:
        raise Refusal(413, f"Choose from 1 to {integer_text(MAX_AT_ONCE)} items: this was {len(ids):,}.")
    if not all(type(i) is str and i.isascii() and i.isdigit() and len(i) <= 19 for i in ids):
        raise Refusal(400, "An item's id is a whole number, as text.")
    return list(dict.fromkeys(map(int, ids)))


def change_items(call: Call) -> Any:
    """POST /api/items/change: `{"ids": [...], "set": {...}, "remove": [...]}`, all or nothing."""
    store, ids = call.store, ids_in(call)
    values, removed = sent_values(call), removed_names(call)
    label = f"change {', '.join(sorted({*values, *removed}))[:80]} of {len(ids):,} items"

    def change() -> int:
        for item_id in ids:
            assign(store.get(item_id), values, removed)
        return len(ids)

    count = store.transact(change, label=label)
    return {"count": count, "commit": commit_with(store, ids[0], label)}


def delete_items(call: Call) -> Any:
    """POST /api/items/delete: `{"ids": [...]}`, all or nothing; what is gone already does not matter."""
    store, ids = call.store, ids_in(call)
    found = [item for item in map(store._objects.find, ids) if item is not None]
    if not found:
        return {"count": 0, "commit": None}
    what = item_label(found[0])[:60] if len(found) == 1 else f"{len(found):,} items"
    label = f"delete {what}"

    def delete() -> int:
        count = 0
        for item in found:
            if store._objects.find(item.item_id) is not None:  # the deletion of another may have taken it along
                item.delete()
                count += 1
        return count

    return {"count": store.transact(delete, label=label), "commit": commit_with(store, found[0].item_id, label)}


def find_pool(call: Call, name: str = "pool_id") -> Pool:
    """The pool that the path names. Raises Refusal if the item is none."""
    item = call.store.get(call.path[name])
    if not isinstance(item, Pool):
        raise Refusal(404, f"Item {item.item_id} is not a pool.")
    return item


def put_in_pool(call: Call) -> Any:
    """POST /api/pools/ID/add: `{"ids": [...]}`."""
    return _members(call, Pool.add, "add", "to")


def take_from_pool(call: Call) -> Any:
    """POST /api/pools/ID/remove: `{"ids": [...]}`; the items stay in the store."""
    return _members(call, _take, "remove", "from")


def _take(pool: Pool, item: Item) -> None:
    if item in pool:
        pool.remove(item)


def _members(call: Call, move: Any, verb: str, where: str) -> Any:
    pool, ids = find_pool(call), ids_in(call)
    items = [call.store.get(item_id) for item_id in ids]
    what = item_label(items[0])[:60] if len(items) == 1 else f"{len(items):,} items"
    label = f"{verb} {what} {where} {pool.name[:60]}"

    def run() -> None:
        for item in items:
            move(pool, item)

    call.store.transact(run, label=label)
    return {"count": len(items), "commit": commit_with(call.store, ids[0], label)}


def create_item(call: Call) -> Any:
    """POST /api/pools/ID/items: `{"type": "pim.Contact", "set": {...}}`."""
    store, pool = call.store, find_pool(call)
    type_name = call.field("type", str, "atop.Item")
    cls = class_named(type_name)
    if cls is None or issubclass(cls, Pool):
        raise Refusal(422, f"Items of the type {type_name[:80]} cannot be made here: the program does not know it.")
    values = sent_values(call)
    missing = sorted(cls._required - values.keys())
    if missing:
        raise Refusal(422, f"This is needed: {', '.join(missing)}.", name=missing[0])

    def create() -> Item:
        item: Item = _make(cls, store, values)
        pool.add(item)
        return item

    item = store.transact(create, label=f"create {cls.__name__} in {pool.name[:60]}")
    return {"item": describe(item), "commit": str(item.version)}


def _make(cls: type[Item], store: Store, values: dict[str, Any]) -> Item:
    try:
        item: Item = cls(store, **values)
    except (TypeError, AttributeError) as error:
        if isinstance(error, AtopError):
            raise
        raise Refusal(422, f"This item cannot be made: {error}.") from None
    return item


def undo(call: Call) -> Any:
    """POST /api/undo: `{"commit": "12"}`, an id of a commit."""
    commit = call.field("commit", str)
    if not (commit.isascii() and commit.isdigit() and len(commit) <= 19):
        raise Refusal(400, "A commit's id is a whole number, as text.")
    found = call.store.commit(int(commit))
    call.store.undo(found)
    return {"undone": commit, "label": found.label}


VIEW = View(
    routes=[
        action("/api/items/change", change_items),
        action("/api/items/delete", delete_items),
        action("/api/items/{item_id:int}", show_item, methods=["GET"]),
        action("/api/items/{item_id:int}", change_item, methods=["PATCH"]),
        action("/api/items/{item_id:int}/value", show_value, methods=["GET"]),
        action("/api/pools/{pool_id:int}/items", create_item),
        action("/api/pools/{pool_id:int}/add", put_in_pool),
        action("/api/pools/{pool_id:int}/remove", take_from_pool),
        action("/api/undo", undo),
    ],
)
