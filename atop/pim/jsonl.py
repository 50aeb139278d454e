"""JSON Lines in and out: items of any class, without loss, the contents of their files included.

One object a line:

    {"atop_export": 1, "pool": "contacts", "origin": "5f0c..."}                      the first line
    {"file": "6b0c...", "part": "aGVsbG8=", "last": true}      contents of a file, some at a time, before they are named
    {"type": "pim.Contact", "id": 7, "attributes": {"name": "Ada", "born": {"$date": "1815-12-10"}}}

`typed` says what values look like. An item that refers to others may come before them: the importer sees to that. A
file without the first line is taken for plain items, one a line.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any, BinaryIO, NamedTuple, cast

from atop import File
from atop.pim.incoming import RECORD_ERRORS, Broken, Record, fingerprint, hashed_uid, is_pool_name, reason_of
from atop.pim.items import KINDS
from atop.pim.lines import decode
from atop.pim.table import attribute_name
from atop.pim.typed import Decoder, dumps, encode, loads

FORMAT = 1

# Bytes of a file's contents in one line.
PART_BYTES = 768 * 1024

# Bytes of contents held in memory before they go to a temporary file.
SPOOL_BYTES = 4 * 1024 * 1024

KeepFile = Callable[[bytes, BinaryIO], None]


def header_line(pool: str, origin: str) -> str:
    """The first line of an export. `origin` is what the ids of its items belong to."""
    return dumps({"atop_export": FORMAT, "pool": pool, "origin": origin})


def item_line(type_name: str, item_id: int, attributes: Mapping[str, Any]) -> str:
    """The line of an item."""
    return json.dumps(
        {"type": type_name, "id": item_id, "attributes": {name: encode(v) for name, v in attributes.items()}},
        ensure_ascii=False,
        separators=(",", ":"),
    )


def file_lines(file: File) -> Iterator[str]:
    """The lines of a file's contents. Raises `NoSuchFile`."""
    digest = file.digest.hex()
    with file.open() as stream:
        part = stream.read(PART_BYTES)
        while True:
            following = stream.read(PART_BYTES)
            text = base64.b64encode(part).decode("ascii")
            yield dumps({"file": digest, "part": text, "last": not following})
            if not following:
                return
            part = following


class JsonLines:
    """Reads an export, line by line. `pool` is the name of its pool once the first line is read, or empty."""

    def __init__(self, lines: Iterable[bytes | None], decoder: Decoder, keep_file: KeepFile) -> None:
        self.pool = ""
        self.origin = ""
        self._lines = lines
        self._decoder = decoder
        self._keep_file = keep_file
        self.refers = False  # some item refers to others
        self._is_export = False
        self._contents: IO[bytes] | None = None
        self._digest = ""

    def records(self) -> Iterator[Record | Broken]:
        """The items, in order. References to other items are left out of their `state`: see `read_references`."""
        number = 0
        try:
            for number, line in enumerate(self._lines, 1):
                found = self._try(number, line)
                if found is not None:
                    yield found
            if self._contents is not None:
                yield Broken(number, f"the contents of file {self._digest[:12]} are cut short")
        finally:
            self._drop_contents()

    def _try(self, number: int, line: bytes | None) -> Record | Broken | None:
        if line is None:
            return Broken(number, "is a line that is too long")
        if not line.strip():
            return None
        try:
            return self._read(number, line)
        except RECORD_ERRORS as error:
            return Broken(number, f"is no line of an export: {reason_of(error)}")

    def _read(self, number: int, line: bytes) -> Record | None:
        entry = loads(decode(line))
        if not isinstance(entry, dict):
            raise ValueError("an object is expected")
        if "atop_export" in entry:
            self._read_header(entry)
            return None
        if not self._is_export:
            return _plain(number, line, entry)
        if "file" in entry:
            self._add_part(entry)
            return None
        return self._item(number, line, entry)

    def _read_header(self, entry: dict[str, Any]) -> None:
        if entry["atop_export"] != FORMAT:
            raise ValueError(f"it has format {entry['atop_export']!r}, and this version reads {FORMAT}")
        pool, origin = entry.get("pool"), entry.get("origin")
        if not isinstance(pool, str) or not isinstance(origin, str):
            raise ValueError("its first line names no pool")
        is_name = not pool or is_pool_name(pool)
        self.pool, self.origin, self._is_export = pool if is_name else "", origin[:64], True
        if not is_name:
            raise ValueError("no pool can have the name that it gives: the one of the file's name takes its items")

    def _add_part(self, entry: dict[str, Any]) -> None:
        digest, part = entry["file"], entry.get("part")
        if not isinstance(digest, str) or not isinstance(part, str) or len(digest) != 64:
            raise ValueError("contents of a file are expected")
        if self._contents is None or digest != self._digest:
            self._drop_contents()
            self._contents = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - it outlives this call
            self._digest = digest
        self._contents.write(base64.b64decode(part, validate=True))
        if entry.get("last") is True:
            self._contents.seek(0)
            try:
                self._keep_file(bytes.fromhex(digest), cast(BinaryIO, self._contents))
            finally:
                self._drop_contents()

    def _drop_contents(self) -> None:
        if self._contents is not None:
            self._contents.close()
            self._contents = None

    def _item(self, number: int, line: bytes, entry: dict[str, Any]) -> Record:
        type_name, item_id, attributes = _parts(entry)
        referring = _referring(attributes)
        plain = {name: typed for name, typed in attributes.items() if name not in referring}
        state, losses, lossy = self._decoder.decode_all(plain)
        kind = KINDS.get(type_name, "item")
        own_uid = state.get("uid") if kind != "item" else ""
        uid = own_uid if isinstance(own_uid, str) and own_uid else f"{self.origin}:{item_id}"
        if kind != "item":
            state["uid"] = uid
        record = Record(kind, uid, state, number, len(line), fingerprint(line.strip()))
        record.type_name, record.exported_id = type_name, item_id
        record.references = list(referring)
        self.refers = self.refers or bool(referring)
        record.losses, record.lossy = losses, lossy
        return record


class Referring(NamedTuple):
    """The attributes of an exported item that refer to others, in typed form."""

    line: int
    exported_id: int
    typed: dict[str, Any]
    fingerprint: bytes  # of the whole record
    size: int  # bytes of its line


def read_references(lines: Iterable[bytes | None]) -> Iterator[Referring]:
    """The items that refer to others; what is broken is left out."""
    for number, line in enumerate(lines, 1):
        if line is not None and b'"$ref"' in line:
            try:
                _, item_id, attributes = _parts(loads(decode(line)))
                found = Referring(number, item_id, _referring(attributes), fingerprint(line.strip()), len(line))
            except RECORD_ERRORS:  # reported when the items were read
                continue
            yield found


def _parts(entry: Any) -> tuple[str, int, dict[str, Any]]:
    """Type name, id and attributes of an exported item. Raises ValueError or AttributeError."""
    type_name, item_id, attributes = entry.get("type"), entry.get("id"), entry.get("attributes")
    if not isinstance(type_name, str) or type(item_id) is not int or not isinstance(attributes, dict):
        raise ValueError("type, id and attributes of an item are expected")
    if not 0 < item_id < 1 << 63:
        raise ValueError(f"an item's id is from 1 to {(1 << 63) - 1}, and this is none")
    return type_name, item_id, attributes


def _referring(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes that hold a reference to an item, at any depth."""
    return {name: value for name, value in attributes.items() if '"$ref"' in json.dumps(value)}


def _plain(number: int, line: bytes, entry: dict[str, Any]) -> Record:
    """An object of another program: an item with its members as attributes."""
    state: dict[str, Any] = {}
    for key, value in entry.items():
        name = attribute_name(key)
        if name and name not in state:
            state[name] = value
    own = entry.get("uid", entry.get("id"))
    uid = f"id:{own}" if isinstance(own, (str, int)) and own != "" else hashed_uid("line", line.strip())
    record = Record("item", uid, state, number, len(line), fingerprint(line.strip()))
    record.type_name = "atop.Item"
    return record
