"""Decodes the encoded words of mail headers (RFC 2047), as mail programs really write them.

Words that stand side by side are decoded together, since many programs cut a character in two between them; what is
no valid word stays as it is. In linear time; never fails.
"""

from __future__ import annotations

import binascii
import re

from atop.pim.lines import decode

# Charset, perhaps with a language (RFC 2231), encoding, text; and the white space before another word.
_WORD = re.compile(r"=\?([^?\s*]{1,60})(?:\*[^?\s]{0,40})?\?([BbQq])\?([^?]*)\?=(\s+(?==\?))?")


def decode_words(text: str) -> str:
    """The text of a header field, its encoded words decoded."""
    if "=?" not in text:
        return text
    parts: list[str] = []
    pending = b""  # octets of words that stand side by side, in one charset
    charset = ""
    position = 0
    for match in _WORD.finditer(text):
        octets = _octets(match[2], match[3])
        if octets is None:
            continue  # it is copied with the text before the next word
        if match.start() > position or match[1].lower() != charset:
            parts.append(decode(pending, charset or None))
            parts.append(text[position : match.start()])
            pending, charset = b"", match[1].lower()
        pending += octets
        position = match.end()
    parts.append(decode(pending, charset or None))
    parts.append(text[position:])
    return "".join(parts)


def _octets(encoding: str, text: str) -> bytes | None:
    try:
        if encoding in "Bb":
            return binascii.a2b_base64(text + "=" * (-len(text) % 4))
        return binascii.a2b_qp(text.replace("_", " ").encode("utf-8", "replace"))
    except ValueError:
        return None
