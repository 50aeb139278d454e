"""Content lines: the syntax that vCard and iCalendar share (RFC 6350 section 3.3, RFC 5545 section 3.1).

Reads what is written in practice, which is more than the RFCs allow: the bare parameters and
quoted-printable of vCard 2.1, the groups of Apple, lower case, missing quotes, lines broken without
folding. Writes only what the RFCs allow. Property values stay as they are written: escaping depends on the
property, so `unescape`, `split_escaped` and `escape` are applied by who knows it.

A parser of our own because the files are the user's whole address book or calendar: `vobject` reads about
2,600 cards a second, and raises on a card with one odd line; this reads several times as many, and keeps the
card.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atop.pim.lines import decode

# Longest line written, in octets, without the line end (RFC 6350 section 3.2, RFC 5545 section 3.1).
FOLD_OCTETS = 75

# Most properties of one record. A record past it is not a person's card; each costs about 500 bytes.
MAX_PROPERTIES = 20_000

ENCODINGS_2_1 = frozenset({"7BIT", "8BIT", "QUOTED-PRINTABLE", "BASE64"})
BARE_VALUE_KINDS = frozenset({"INLINE", "URL", "CONTENT-ID", "CID"})

_HEAD = re.compile(r'((?:[^:"]++|"[^"]*+")*+):')  # possessive: linear time, whatever the quotes
_PARAMETER = re.compile(r';((?:[^;"]++|"[^"]*+"?)*+)')
_PARAMETER_VALUE = re.compile(r'((?:[^,"]++|"[^"]*+"?)*+)(?:,|\Z)')
_NAME = re.compile(r"[A-Za-z0-9_/-]+\Z")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_CARETS = re.compile(r"\^([n^'])")
_NEEDS_QUOTES = re.compile(r"[:;,\x00-\x1f]")
_SOFT_BREAK = re.compile(rb"=[ \t]*\Z")

Parameters = dict[str, list[str]]


class ContentLine(NamedTuple):
    """One property: `name` and parameter names in capitals, the value as written."""

    name: str
    value: str
    parameters: Parameters
    group: str = ""

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a parameter."""
        values = self.parameters.get(name)
        return values[0] if values else default


# ---------------------------------------------------------------------------------------------- reading


def unfold(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Logical lines of the physical lines of one record, without line ends (RFC 6350 section 3.2).

    A quoted-printable value goes on after a soft line break. Blank lines are dropped: in vCard 2.1 they
    end a base64 value.
    """
    pending: bytearray | None = None
    soft = False  # the pending line ends with a soft line break
    for physical in lines:
        line = physical.rstrip(b"\r\n")
        if soft and pending is not None:
            del pending[pending.rindex(b"=") :]
            pending += line
            soft = _SOFT_BREAK.search(line) is not None
        elif line[:1] in (b" ", b"\t") and pending is not None:
            pending += line[1:]
        else:
            if pending:
                yield bytes(pending)
            pending = bytearray(line)
            soft = _SOFT_BREAK.search(line) is not None and _is_quoted_printable(line)
    if pending:
        yield bytes(pending)


def _is_quoted_printable(line: bytes) -> bool:
    return b"QUOTED-PRINTABLE" in line.partition(b":")[0].upper()


def parse_record(lines: list[bytes]) -> list[ContentLine]:
    """The properties of one record, from its physical lines.

    A line that is no property continues the one before it on a new line, as when a program has written a
    line feed of a note without escaping it. Raises ValueError past `MAX_PROPERTIES`.
    """
    raw = b"".join(lines)
    if b"=" in raw and b"QUOTED-PRINTABLE" in raw.upper():
        logical: list[bytes] | list[str] = list(unfold(lines))
    else:  # without soft line breaks, unfolding is one replacement
        raw = raw.replace(b"\r\n", b"\n").replace(b"\n ", b"").replace(b"\n\t", b"")
        try:
            logical = raw.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            logical = raw.split(b"\n")
    properties: list[ContentLine] = []
    loose: list[str] = []  # lines that go on where the last property ends
    for line in logical:
        if not line.strip():
            continue
        parsed = parse_line(line)
        if parsed is None:
            loose.append(line if isinstance(line, str) else decode(line))
            continue
        if loose:
            _append_loose(properties, loose)
        properties.append(parsed)
        if len(properties) > MAX_PROPERTIES:
            raise ValueError(f"has more than {MAX_PROPERTIES} properties")
    _append_loose(properties, loose)
    return properties


def _append_loose(properties: list[ContentLine], loose: list[str]) -> None:
    if properties and loose:
        last = properties[-1]
        properties[-1] = last._replace(value="\\n".join([last.value, *loose]))
    loose.clear()


def parse_line(line: str | bytes) -> ContentLine | None:
    """One unfolded line as a property; None if it is not one.

    Bytes are decoded by the line's own CHARSET parameter, else as UTF-8 or Windows-1252. A quoted-printable
    value is decoded, its line breaks written as escapes.
    """
    text = line if isinstance(line, str) else line.decode("latin-1")
    head, colon, value = text.partition(":")
    if not colon:
        return None
    if '"' in head:
        match = _HEAD.match(text)
        if match is not None:  # else a quote is never closed: take it for an ordinary character
            head, value = match[1], text[match.end() :]
    parameters: Parameters = {}
    name = head
    if ";" in head:
        name, _, rest = head.partition(";")
        parameters = _parse_parameters(rest)
    group = ""
    if "." in name:
        group, _, name = name.rpartition(".")
    name = name.strip()
    if not _NAME.match(name):
        return None
    if not isinstance(line, str):
        parameters, value = _decode_bytes(line, head, parameters)
    if parameters and "ENCODING" in parameters:
        value = _decode_quoted_printable(parameters, value)
    return ContentLine(name.upper(), value, parameters, group)


def _parse_parameters(text: str) -> Parameters:
    parameters: Parameters = {}
    parts = text.split(";") if '"' not in text else [m[1] for m in _PARAMETER.finditer(";" + text)]
    for part in parts:
        name, equals, value = part.partition("=")
        name = name.strip().upper()
        if not equals:  # vCard 2.1 writes the value of TYPE, ENCODING or VALUE alone
            if not name:
                continue
            name, value = _name_of_bare(name), name
        values = [value] if "," not in value else _split_values(value)
        values = [_CARETS.sub(_uncaret, v) if "^" in v else v for v in (v.strip().strip('"') for v in values)]
        if name == "TYPE":  # vCard 4.0 allows TYPE="home,work"
            values = [v for joined in values for v in joined.split(",")]
        parameters.setdefault(name, []).extend(values)
    return parameters


def _split_values(text: str) -> list[str]:
    return text.split(",") if '"' not in text else [m[1] for m in _PARAMETER_VALUE.finditer(text) if m[0]]


def _name_of_bare(value: str) -> str:
    if value in ENCODINGS_2_1:
        return "ENCODING"
    return "VALUE" if value in BARE_VALUE_KINDS else "TYPE"


def _uncaret(match: re.Match[str]) -> str:
    return {"n": "\n", "^": "^", "'": '"'}[match[1]]  # RFC 6868 section 3


def _decode_bytes(line: bytes, head: str, parameters: Parameters) -> tuple[Parameters, str]:
    charset = parameters.get("CHARSET", [None])[0]
    value = decode(line[len(head) + 1 :], charset)
    texts = {name: [decode(v.encode("latin-1")) for v in values] for name, values in parameters.items()}
    return texts, value


def _decode_quoted_printable(parameters: Parameters, value: str) -> str:
    if parameters["ENCODING"][0].upper() != "QUOTED-PRINTABLE":
        return value
    charset = parameters.pop("CHARSET", [None])[0]
    del parameters["ENCODING"]
    # Characters that should have been encoded, but were not, survive as UTF-8 beside what was.
    raw = binascii.a2b_qp(value.encode("utf-8", "replace"))
    text = decode(raw, charset)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\\n")


def unescape(value: str) -> str:
    r"""Text of an escaped value: `\n` is a line feed, any other escaped character itself."""
    if "\\" not in value:
        return value
    return _ESCAPED.sub(_unescape_one, value)


def _unescape_one(match: re.Match[str]) -> str:
    return "\n" if match[1] in "nN" else match[1]


def split_escaped(value: str, separator: str) -> list[str]:
    """Split at separators that are not escaped; the parts stay escaped."""
    if "\\" not in value:
        return value.split(separator)
    parts: list[str] = []
    start = position = 0
    while position < len(value):
        if value[position] == "\\":
            position += 1
        elif value[position] == separator:
            parts.append(value[start:position])
            start = position + 1
        position += 1
    parts.append(value[start:])
    return parts


def split_texts(value: str) -> list[str]:
    """The texts of a comma-separated list, without the empty ones."""
    return [text for part in split_escaped(value, ",") if (text := unescape(part).strip())]


# ---------------------------------------------------------------------------------------------- writing


def escape(text: str) -> str:
    """A text value (RFC 6350 section 4, RFC 5545 section 3.3.11). Carriage returns become line feeds."""
    text = text.replace("\\", "\\\\").replace(";", "\\;").replace(",", "\\,")
    return clean(text).replace("\n", "\\n")


def clean(text: str) -> str:
    """Text with line feeds as the only line ends, and no half of a surrogate pair."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-8", "replace").decode("utf-8")


def format_line(name: str, value: str, parameters: Parameters | None = None, group: str = "") -> str:
    """One property, unfolded and without line end. The value is written as it is, its line feeds as escapes."""
    head = f"{group}.{name}" if group else name
    for key, values in (parameters or {}).items():
        head += f";{key}=" + ",".join(map(_format_parameter, values))
    return clean(f"{head}:{value}").replace("\n", "\\n")


def _format_parameter(value: str) -> str:
    value = clean(value).replace("^", "^^").replace("\n", "^n").replace('"', "^'")
    return f'"{value}"' if _NEEDS_QUOTES.search(value) or value != value.strip() else value


def fold(line: str) -> bytes:
    """A line as octets, folded at `FOLD_OCTETS` and never within a character, with its line end."""
    data = line.encode("utf-8", "replace")
    if len(data) <= FOLD_OCTETS:
        return data + b"\r\n"
    if len(data) == len(line):  # one octet a character: cut at fixed steps
        step = FOLD_OCTETS - 1
        pieces = [data[i : i + step] for i in range(FOLD_OCTETS, len(data), step)]
        return b"\r\n ".join([data[:FOLD_OCTETS], *pieces]) + b"\r\n"
    pieces, start = [], 0
    room = FOLD_OCTETS
    while start < len(data):
        end = min(start + room, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # the middle of a character
            end -= 1
        pieces.append(data[start:end])
        start, room = end, FOLD_OCTETS - 1
    return b"\r\n ".join(pieces) + b"\r\n"
