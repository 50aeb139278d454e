"""Values in full, for the page of an item and its editors; and what changed between two of them.

A tree is JSON: `k` the kind, `t` the text; `items` of a collection, `entries` of a dict (pairs of trees); `id` of an
item that is referred to; `digest`, `size`, `name` and `media_type` of a file; `json`, the typed JSON of what has no
editor of its own; `more`, how many elements or characters were left out of what is only to be shown.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from atop import FileInfo, Reference, Store
from atop.browser.cells import clean, kind_of, label_of, text_of
from atop.pim.typed import MAX_DEPTH, dumps

# What a page shows of one value; an editor gets all of it.
SHOWN_TEXT = 5_000
SHOWN_ELEMENTS = 100
# Collections of nothing but texts up to this length are shown on one line.
SHOWN_FLAT = 40
# What is compared word by word; longer texts are shown as they were and as they are.
MAX_COMPARED = 4_000
# How much of two texts must be the same for that, from 0 to 1.
ALIKE = 0.4

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"})

_WORD = re.compile(r"\s+|[^\W_]+|[\W_]")


def tree(store: Store, value: Any, *, whole: bool = False, depth: int = 0) -> dict[str, Any]:
    """A stored value as a tree; with `whole`, nothing is left out."""
    kind = kind_of(value)
    made: dict[str, Any] = {"k": kind, "t": "", "more": 0}
    if depth > MAX_DEPTH:
        return {**made, "t": "..."}
    match value:
        case str():
            text = clean(value)
            made["t"] = text if whole else text[:SHOWN_TEXT]
            if not whole and len(text) > SHOWN_TEXT:
                made["more"] = len(text) - SHOWN_TEXT
        case Reference():
            label = label_of(store, value.item_id)
            made |= {"id": str(value.item_id), "t": label or f"item {value.item_id}, deleted", "gone": label is None}
        case FileInfo():
            made |= describe_file(value)
            made["t"] = made["name"] or "file"
            made["image"] = value.media_type in IMAGES
        case Mapping():
            pairs = list(value.items())
            shown = pairs if whole else pairs[:SHOWN_ELEMENTS]
            made["entries"] = [
                [tree(store, k, whole=whole, depth=depth + 1), tree(store, v, whole=whole, depth=depth + 1)]
                for k, v in shown
            ]
            made["more"] = len(pairs) - len(shown)
        case list() | tuple() | set() | frozenset():
            members = list(value)
            shown_members = members if whole else members[:SHOWN_ELEMENTS]
            made["items"] = [tree(store, member, whole=whole, depth=depth + 1) for member in shown_members]
            if isinstance(value, (set, frozenset)):
                made["items"].sort(key=lambda one: (one["k"], one["t"]))
            made["more"] = len(members) - len(shown_members)
            made["flat"] = all(type(member) is str and len(member) <= SHOWN_FLAT for member in members)
        case bytes() if whole:
            made["t"] = value.hex(" ")
        case _:
            made["t"] = text_of(value, store)
    if kind in ("enum", "value"):
        try:
            made["json"] = clean(dumps(value))
        except TypeError:
            made["json"] = ""
    return made


def describe_file(info: FileInfo) -> dict[str, Any]:
    """A file as typed JSON has it, inside of `$file`."""
    return {
        "digest": info.digest.hex(),
        "size": info.size,
        "name": clean(info.name),
        "media_type": clean(info.media_type),
    }


def difference(store: Store, old: Any, new: Any) -> list[tuple[str, str]]:
    """How a value became another: pieces of text, each "same", "gone" or "new"."""
    if type(old) is str and type(new) is str and max(len(old), len(new)) <= MAX_COMPARED:
        pieces = _words(clean(old), clean(new))
        if pieces is not None:
            return pieces
    before, after = _shown(store, old), _shown(store, new)
    return [piece for piece in (("gone", before), ("new", after)) if piece[1]]


def _shown(store: Store, value: Any) -> str:
    if value is None:
        return ""
    if value == "":
        return "(empty)"
    return text_of(value, store)[:MAX_COMPARED]


def _words(old: str, new: str) -> list[tuple[str, str]] | None:
    """The difference word by word; None where there is little in common, so that this would only be confusing."""
    first, second = _WORD.findall(old), _WORD.findall(new)
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    if matcher.ratio() < ALIKE:
        return None
    pieces: list[tuple[str, str]] = []
    for operation, a, b, c, d in matcher.get_opcodes():
        if operation == "equal":
            pieces.append(("same", _shortened("".join(first[a:b]))))
        else:
            pieces += [("gone", "".join(first[a:b])), ("new", "".join(second[c:d]))]
    return [piece for piece in pieces if piece[1]]


def _shortened(text: str) -> str:
    """What is the same on both sides, without its middle where it is long."""
    return f"{text[:60]} ... {text[-60:]}" if len(text) > 160 else text
