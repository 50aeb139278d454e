"""Which messages belong to one conversation, by In-Reply-To and References.

Up from a message go the ids that it names; down go the messages that name it, which the index `in_reply_to` has. In a
pool without that index they are looked for among those with the same subject. Both are bounded.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from atop import Item, Pool
from atop.browser import attributes as attr

MAX_MESSAGES = 60
# Most messages of one subject that are looked at, where there is no index of replies.
MAX_SUBJECT = 200

_REPLY = re.compile(r"\s*(?:(?:re|aw|sv|fwd?|wg|antw)\s*(?:\[\d+\])?\s*:\s*)+", re.IGNORECASE)
_PREFIXES = ("", "Re: ", "Aw: ", "Fwd: ", "Fw: ", "Sv: ", "Wg: ")


def conversation(pool: Pool, item: Item) -> list[Item]:
    """The messages of the conversation of one, by date; none if it is the only one."""
    found = {item.item_id: item}
    waiting = [item]
    while waiting and len(found) < MAX_MESSAGES:
        message = waiting.pop()
        for other in (*_named(pool, message), *_replies(pool, message)):
            if other.item_id not in found and len(found) < MAX_MESSAGES:
                found[other.item_id] = other
                waiting.append(other)
    if len(found) == 1:
        return []
    first = datetime.datetime.min
    return sorted(found.values(), key=lambda one: (attr.moment(attr.get(one, "date")) or first, one.item_id))


def ids_named(item: Item) -> list[str]:
    """The ids of the messages that one answers, the nearest last."""
    named = attr.elements(attr.get(item, "references"))
    ids = [attr.text(value, 1_000) for value in (*named, attr.get(item, "in_reply_to"))]
    return attr.unique(value for value in ids if value)[-MAX_MESSAGES:]


def _named(pool: Pool, item: Item) -> Iterator[Item]:
    if "message_id" in pool.indexes:
        for message_id in ids_named(item):
            yield from pool.query("message_id", key=message_id, limit=2)


def _replies(pool: Pool, item: Item) -> Iterator[Item]:
    own = attr.text(attr.get(item, "message_id"), 1_000)
    indexes = pool.indexes
    if not own:
        return
    if "in_reply_to" in indexes:
        yield from pool.query("in_reply_to", key=own, limit=MAX_MESSAGES)
    elif "subject" in indexes:
        subject = _REPLY.sub("", attr.text(attr.get(item, "subject"), 1_000), count=1)
        for prefix in _PREFIXES if subject.strip() else ():
            for other in pool.query("subject", key=f"{prefix}{subject}", limit=MAX_SUBJECT):
                if own in ids_named(other):
                    yield other
