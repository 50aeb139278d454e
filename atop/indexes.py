"""What a pool's indexes are made of: definitions, and the index entries that an item's attributes give.

An entry of the index table is keyed by pool id (u64), index number (u16), the encoded key and the item id (u64), all
big-endian. Index number 0 lists the members by id; its key is empty. Entries depend on stored attributes alone, never
on a class, so that any device works out the same ones.
"""

from __future__ import annotations

import enum
import functools
import re
import struct
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from atop.errors import UnstorableValue
from atop.keys import encode, encode_text
from atop.records import pack_u64
from atop.values import ATOMS, order_value

# The longest encoded key, in bytes: it stands once in the index and passes through every comparison on the way there.
MAX_KEY = 256 << 10
# The most distinct words of one item that a word index holds, and the longest word, in characters.
MAX_WORDS = 5_000
MAX_WORD = 64

READY = "ready"
BUILDING = "building"

_pack_prefix = struct.Struct(">QH").pack
PREFIX_SIZE = 10
ID_SIZE = 8

_word = re.compile(r"\w+")


class IndexDefinition(NamedTuple):
    """One index of a pool. `state` is READY, or BUILDING while every write keeps it but no query may use it."""

    number: int
    attributes: tuple[str, ...]
    nocase: bool = False
    words: bool = False
    state: str = READY


def prefix_of(pool_id: int, number: int) -> bytes:
    """What the keys of all entries of one index begin with."""
    return _pack_prefix(pool_id, number)


# The keys of the entries of one index for an item, given its attributes and its id as 8 bytes: all different.
KeyMaker = Callable[[Mapping[str, Any], bytes], Collection[bytes]]


class Plan(NamedTuple):
    """How one pool's entries are made: the prefix of its membership entries, and what makes the keys of its indexes."""

    pool_id: int
    members: bytes
    indexes: tuple[KeyMaker, ...]
    by_attribute: dict[str, tuple[KeyMaker, ...]]  # the indexes that an attribute is a part of

    def affected(self, changed: Collection[str]) -> Iterable[KeyMaker]:
        """The indexes that a change of these attributes concerns."""
        if len(changed) == 1:
            (name,) = changed
            return self.by_attribute.get(name, ())
        return dict.fromkeys(index for name in changed for index in self.by_attribute.get(name, ()))


def make_plan(pool_id: int, definitions: Mapping[str, Sequence[Any]]) -> Plan:
    """The plan of a pool whose record holds these `definitions` (index name -> fields of an IndexDefinition)."""
    made = [IndexDefinition(*fields) for fields in definitions.values()]
    makers = [(_key_maker(prefix_of(pool_id, definition.number), definition), definition) for definition in made]
    names = {name for definition in made for name in definition.attributes}
    by_attribute = {name: tuple(make for make, of in makers if name in of.attributes) for name in names}
    return Plan(pool_id, prefix_of(pool_id, 0), tuple(make for make, _ in makers), by_attribute)


def _key_maker(prefix: bytes, definition: IndexDefinition) -> KeyMaker:
    if definition.words or definition.nocase or len(definition.attributes) != 1:
        return functools.partial(index_keys, prefix, definition)
    (name,) = definition.attributes

    def keys(attributes: Mapping[str, Any], item_key: bytes) -> Collection[bytes]:
        value = attributes.get(name)
        if type(value) is str and len(value) < MAX_KEY // 8:  # most keys there are: so they are made here
            return (prefix + encode_text(value) + item_key,)
        return (index_key(prefix, definition, attributes, item_key),)

    return keys


def entry_keys(plan: Plan, attributes: Mapping[str, Any], item_key: bytes) -> list[bytes]:
    """The keys of all index entries of an item that is in the plan's pool; `item_key` is its id as 8 bytes.

    Raises:
        UnstorableValue: an indexed attribute holds what cannot be ordered, or is too long for a key.
    """
    keys = [plan.members + item_key]
    for make in plan.indexes:
        keys += make(attributes, item_key)
    return keys


def index_keys(
    prefix: bytes, definition: IndexDefinition, attributes: Mapping[str, Any], item_key: bytes
) -> Collection[bytes]:
    """The keys of the entries of one index for one item: one, or one for each word."""
    if definition.words:
        found = words_of([attributes.get(name) for name in definition.attributes])
        return {prefix + encode(word) + item_key for word in found}
    return (index_key(prefix, definition, attributes, item_key),)


def index_key(prefix: bytes, definition: IndexDefinition, attributes: Mapping[str, Any], item_key: bytes) -> bytes:
    """The key of the one entry that an item has in an index which is no word index."""
    key = prefix
    for name in definition.attributes:
        value = attributes.get(name)
        try:
            key += encode(value if type(value) in ATOMS else order_value(value), definition.nocase)
        except UnstorableValue:
            raise UnstorableValue(
                f"item {int.from_bytes(item_key)}: {', '.join(definition.attributes)} is indexed, and a "
                f"{type(value).__name__} has no order: drop the index, or keep the value in another attribute"
            ) from None
    if len(key) - len(prefix) > MAX_KEY:
        raise UnstorableValue(
            f"item {int.from_bytes(item_key)}: the value of {', '.join(definition.attributes)} is too long to be "
            f"indexed ({MAX_KEY >> 10} KiB at most): use a word index (words=True), or keep the text in a File"
        )
    return key + item_key


def words_of(value: Any) -> set[str]:
    """The distinct words in a text, or in the texts of a container: folded in case, accents removed."""
    found: set[str] = set()
    for text in _texts(value):
        folded = unicodedata.normalize("NFKD", text.casefold())
        plain = folded if folded.isascii() else "".join(c for c in folded if not unicodedata.combining(c))
        for match in _word.finditer(plain):
            found.add(match[0][:MAX_WORD])
            if len(found) >= MAX_WORDS:
                return found
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not isinstance(value, enum.Enum):  # a program without its class could not tell that it is text
            yield value
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, (set, frozenset)):  # which have no order of their own, and another one in each process
        yield from sorted(text for inner in value for text in _texts(inner))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)


def id_of(entry_key: bytes) -> int:
    """The item id at the end of an index entry's key."""
    return int.from_bytes(entry_key[-ID_SIZE:])


__all__ = [
    "BUILDING",
    "ID_SIZE",
    "MAX_KEY",
    "PREFIX_SIZE",
    "READY",
    "IndexDefinition",
    "Plan",
    "entry_keys",
    "id_of",
    "index_key",
    "index_keys",
    "make_plan",
    "pack_u64",
    "prefix_of",
    "words_of",
]
