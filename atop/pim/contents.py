"""Contents of files inside vCard and iCalendar properties: base64 and data URLs, in all their spellings.

Never follows a URL, and trusts no media type further than to write it down.
"""

from __future__ import annotations

import binascii
import urllib.parse

from atop.pim.contentline import ContentLine, Parameters, unescape
from atop.pim.incoming import Content

# Parameters that are told by how a value is written, not by what it means.
TECHNICAL = frozenset({"CHARSET", "ENCODING", "VALUE"})

# What programs call a file in: Atop's own first.
FILE_NAMES = ("X-FILENAME", "FILENAME", "X-APPLE-FILENAME")

# Those that say what the contents are.
CONTENT_PARAMETERS = TECHNICAL | {"TYPE", "MEDIATYPE", "FMTTYPE", *FILE_NAMES}

IMAGE_STARTS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
    (b"BM", "image/bmp"),
)


def read_content(line: ContentLine, prefix: str) -> Content | None:
    """The contents that a property holds in base64 or as a data URL; None if it holds none, or damaged ones.

    `prefix` is the beginning of the media type where the property names only its end, such as TYPE=JPEG.
    """
    value = line.value
    media_type = (line.parameter("MEDIATYPE") or line.parameter("FMTTYPE")).lower()
    if value[:5].lower() == "data:":
        head, comma, text = unescape(value[5:]).partition(",")
        stated, _, encoding = head.rpartition(";")
        if not comma:
            return None
        media_type = media_type or (stated or head).lower()
        data = _decode_base64(text) if encoding == "base64" else urllib.parse.unquote_to_bytes(text)
    elif line.parameter("ENCODING").upper() in ("B", "BASE64"):
        data = _decode_base64(value)
        media_type = media_type or _media_type_of(line.parameters, prefix)
    else:
        return None
    if not data:
        return None
    name = next((name for key in FILE_NAMES if (name := line.parameter(key))), "")
    return Content(data, name, media_type or _sniff_image(data))


def _decode_base64(text: str) -> bytes | None:
    try:  # not strict: line breaks, and spaces of broken folding, are skipped
        return binascii.a2b_base64(text.replace("\\n", "").encode("ascii"))
    except ValueError:
        return None


def _media_type_of(parameters: Parameters, prefix: str) -> str:
    for value in parameters.get("TYPE", []):
        text = value.strip().lower()
        if "/" in text:
            return text
        if text and prefix and text not in ("pref", "home", "work"):
            return prefix + ("jpeg" if text == "jpg" else text)
    return ""


def _sniff_image(data: bytes) -> str:
    for start, media_type in IMAGE_STARTS:
        if data.startswith(start):
            return media_type
    return ""
