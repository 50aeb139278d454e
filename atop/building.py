"""Filling an index of a pool that has items already, and removing the entries of one that was dropped.

Both go in batches, each a commit of its own, while the pool stays in use. What an interruption leaves is gone on with:
the building by the next call for that index, the removal by the next one that is due, or by compaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from atop.indexes import IndexDefinition, index_keys, prefix_of
from atop.item import lacks_default
from atop.keys import successor
from atop.records import pack_u64
from atop.transaction import Transaction, active
from atop.writeset import INDEX

if TYPE_CHECKING:
    from atop.pool import Pool
    from atop.store import Store
    from atop.writeset import Operations

END = b"\xff" * 9  # past every key that begins with an id
BATCH = 500  # items that one commit indexes


def fill_index(pool: Pool, definition: IndexDefinition, progress: Callable[[int, int], None] | None) -> None:
    """Make the entries of an index that every write already keeps."""
    store = pool._store
    prefix = prefix_of(pool._id, definition.number)
    total, done = len(pool), 0
    behind: list[int] = []  # items of a batch that lack a default
    for chunk in pool._id_chunks(BATCH):

        def batch(item_ids: list[int] = chunk) -> tuple[dict[int, int], Operations]:
            behind.clear()
            pool_state = pool._state or pool._load()
            versions = {pool._id: pool_state.version}
            puts: Operations = {}
            if tuple(definition) not in pool_state.attributes["indexes"].values():
                return versions, puts  # dropped, or finished by someone else, meanwhile
            for item_id in item_ids:
                state = store._objects.read_state(item_id)
                if state is None or pool._id not in state.pools:
                    continue  # it went meanwhile, and took its entries along
                versions[item_id] = state.version
                keys = index_keys(prefix, definition, state.attributes, pack_u64(item_id))
                puts.update(dict.fromkeys(keys, b""))
                if lacks_default(state, definition.attributes):
                    behind.append(item_id)
            return versions, puts

        store._commit_entries(batch, f"build index {definition.number} of {pool._called()}")
        if behind:
            store.transact(_write_defaults, store, behind, label=f"write defaults for {pool._called()}")
        done += len(chunk)
        if progress is not None:
            progress(min(done, total), total)


def _write_defaults(store: Store, item_ids: list[int]) -> None:
    for item in filter(None, map(store._objects.find, item_ids)):
        item._write_back(active(store))


def remove_dropped(pool: Pool) -> None:
    """Remove the entries of all indexes that the pool has dropped."""
    store = pool._store
    if store._objects.find(pool._id) is None:
        return  # the pool was deleted, and its entries with it
    for number in (pool._state or pool._load()).attributes["doomed"]:
        _remove_entries(store, pool._id, number)

        def forget(transaction: Transaction, number: int = number) -> None:
            attributes = transaction.write(pool)
            attributes["doomed"] = tuple(n for n in attributes["doomed"] if n != number)

        store._run(forget, f"index {number} of {pool._called()} is removed")


def remove_doomed(store: Store, pool_id: int) -> None:
    """Remove the entries of all indexes that a pool has dropped, which is about to be deleted.

    The sweep that would do it finds no pool any more.
    """
    state = store._objects.read_state(pool_id)
    for number in state.attributes["doomed"] if state is not None else ():
        _remove_entries(store, pool_id, number)


def _remove_entries(store: Store, pool_id: int, number: int) -> None:
    low = prefix_of(pool_id, number)
    stop = successor(low) or END  # pool ids have 63 bits: there is always a successor
    while keys := store._engine.keys(INDEX, low, stop, 4 * BATCH):
        gone: Operations = dict.fromkeys(keys)
        store._commit_entries(lambda gone=gone: ({}, gone), f"remove index {number} of pool {pool_id}")  # type: ignore[misc]
