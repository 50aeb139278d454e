"""Splits the address fields of mail (RFC 5322 section 3.4), as people and programs really write them.

In linear time, and the same on every version of Python; what is no address is given as it is.
"""

from __future__ import annotations

import re

# A quoted text, a comment, an address in brackets, or anything else up to what may end an address.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|\((?:[^()\\]++|\\.)*+\)?|<[^<>]*+>?|[,;:]|[^",;:(<]++', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPACES = re.compile(r"\s+")


def split_addresses(text: str, limit: int) -> list[tuple[str, str]]:
    """The (name, address) pairs in a field, `limit` at most; either may be empty. Names of groups are dropped."""
    found: list[tuple[str, str]] = []
    words: list[str] = []
    bracketed = comment = ""

    def finish() -> None:
        nonlocal bracketed, comment
        plain = _SPACES.sub(" ", "".join(words)).strip()
        if bracketed:
            found.append((plain, bracketed))
        elif plain:
            found.append((comment, plain.replace(" ", "") if "@" in plain else plain))
        words.clear()
        bracketed = comment = ""

    for match in _TOKEN.finditer(text):
        token = match[0]
        first = token[0]
        if first in '"(' and not token[1:].endswith('"' if first == '"' else ")"):  # never closed: ordinary text
            rest = text[match.start() :].replace('"', " ").replace("(", " ")
            return found + split_addresses("".join(words) + rest, limit - len(found))
        if first == '"':
            words.append(_ESCAPED.sub(r"\1", token[1:].removesuffix('"')))
        elif first == "(":
            comment = _ESCAPED.sub(r"\1", token[1:].removesuffix(")")).strip()
        elif first == "<":
            bracketed = token.strip("<> \t")
        elif first in ",;":
            finish()
        elif first == ":" and not bracketed:  # what stood before is the name of a group
            words.clear()
        else:
            words.append(token)
        if len(found) >= limit:
            return found
    finish()
    return found
