"""The forms of what a commit writes, table by table: for commits that come from another process, or another device.

Promises: what `misshapen` finds nothing in puts only keys and values into the tables that these may hold, and writes
nothing of the engine's own. It loads nothing: whether a record is one, is seen by whoever scans or reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from atop.indexes import ID_SIZE, PREFIX_SIZE
from atop.writeset import CATALOG, FILE_USES_SIZE, INDEX, ITEMS, REFERENCES, RULES, Operations

# What a key of the counters table begins with, and its length: the members of a pool, the uses of a file.
_COUNTER_KEYS: Final = {ord("p"): 1 + ID_SIZE, ord("f"): FILE_USES_SIZE}


def misshapen(operations: Mapping[str, Operations], counters: Iterable[bytes]) -> str | None:
    """What a commit has that its table cannot hold, in words; None where there is nothing of the kind."""
    if operations.keys() != {ITEMS, INDEX, REFERENCES, CATALOG}:
        return "a table that no commit writes to"
    for key, value in operations[ITEMS].items():
        if len(key) != ID_SIZE or not (value is None or len(value) > ID_SIZE):
            return "an item of the wrong form"
    for key, value in operations[INDEX].items():
        if len(key) < PREFIX_SIZE + ID_SIZE or value:
            return "an index entry of the wrong form"
    for key, value in operations[REFERENCES].items():
        if len(key) <= 2 * ID_SIZE or not (value is None or value in RULES):
            return "a reference of the wrong form"
    for key, value in operations[CATALOG].items():
        # names that begin with a zero byte are the engine's own: the format version
        if key.startswith(b"\0") or not (value is None or len(value) == ID_SIZE):
            return "a name of the wrong form"
    for key in counters:
        if not key or len(key) != _COUNTER_KEYS.get(key[0]):
            return "a counter that there is not"
    return None
