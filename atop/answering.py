"""What the owner of a store answers to processes that are attached to it: one question, one answer.

Promises: an answer is the state at one position (see `wire`), with what has changed since the asker's; a commit that is
asked for is applied as the owner's own are. A question that has not the form of one raises `WireError`, and changes
nothing. It knows of no sockets.
"""

from __future__ import annotations

import struct
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from atop.changes import Changes
from atop.engine import TABLES, Engine
from atop.errors import UnsafePickle
from atop.passing import plain_from, plain_to, write_set_from
from atop.records import unpack_u64
from atop.wire import (
    ASK,
    CHECK,
    COMMIT,
    GET,
    GET_ITEMS,
    KEYS_ONLY,
    LEASE,
    MAX_PAIRS,
    PAIRS,
    POSITION,
    RETURN,
    REVERSE,
    WAIT,
    News,
    WireError,
    pack_news,
    present,
)
from atop.writeset import ITEMS, WriteSet

if TYPE_CHECKING:
    from atop.store import Store

T = TypeVar("T")
Answer = tuple[list[bytes | None], int]  # what is answered, and the position at which that is so
Progress = Callable[..., object]

# How often reading is tried beside commits before it keeps them waiting.
TRIES: Final = 4
# How many bytes of records one answer has: the rest is asked for again.
MAX_ANSWER: Final = 32 << 20
# How many pairs are read before their size is looked at.
PAIRS_AT_ONCE: Final = 256
# The longest that WAIT waits, in seconds: an owner that says nothing for much longer than that is stopped, or hangs.
LONGEST_WAIT: Final = 60.0

_item = struct.Struct(">QQ")
_limit = struct.Struct(">IB")


class Asker:
    """One attached store, which may have several connections: what it is being told on any of them."""

    __slots__ = ("__weakref__", "position", "settled")

    def __init__(self) -> None:
        self.position = self.settled = 0


class Answers:
    """Answers questions about one store, which this process owns. May be used by any thread."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self.changes = Changes()
        self._store = store
        self._engine = engine
        self._news = threading.Condition()
        self._askers: weakref.WeakValueDictionary[bytes, Asker] = weakref.WeakValueDictionary()
        self._ending = False

    def answer(self, asker: Asker, kind: int, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        """The answer to a question of this kind, from an asker that knows position `known`.

        Raises:
            AtopError: that is the answer.
            WireError: the question does not have the form of one.
        """
        answer = _ANSWERS.get(kind)
        if answer is None:
            raise WireError(f"a question of kind {kind} is none")
        try:
            return answer(self, asker, known, elements, progress)
        except (struct.error, ValueError) as error:
            raise WireError("a question does not have the form of one") from error

    # -- what has happened

    def note_commits(self, on: bool) -> None:
        """Note what commits change from now on, or no more. One that is under way is seen by `exact`."""
        if on:
            self.changes.add(None)  # what was committed before has not been noted
        self._engine.on_commit = self._committed if on else None

    def _committed(self, write_set: WriteSet) -> None:
        self.changes.add([unpack_u64(key)[0] for key in write_set.operations.get(ITEMS, ())])

    def notify(self) -> None:
        """There is news for those who wait."""
        with self._news:
            self._news.notify_all()

    def end(self) -> None:
        """Have nobody wait any more."""
        self._ending = True
        self.notify()

    # -- the state at one position

    def exact(self, read: Callable[[], T]) -> tuple[T, int]:
        """What `read` returns for the state at one position, and that position."""
        engine, changes = self._engine, self.changes
        for attempt in range(TRIES):
            sequence, position = engine.sequence, changes.position
            if sequence & 1:
                time.sleep(0.000_05 * attempt)
                continue
            found = read()
            if engine.sequence == sequence and changes.position == position:
                return found, position
        with engine.no_commits():
            while True:
                position = changes.position
                found = read()
                if changes.position == position:  # a recovery does not wait
                    return found, position

    def news(self, known: int, position: int) -> bytes:
        """What whoever knows position `known` has to be told with an answer at `position`."""
        engine = self._engine
        changed = self.changes.between(known, position)
        head = engine.head
        return pack_news(
            News(position, head.number, engine.settled(), engine.last_time, head.chain, changed is None, changed or ())
        )

    def wait(self, asker: Asker, known: int, settled: int, seconds: float) -> None:
        """Return when there is news for an asker that knows so much, or after so many seconds."""
        deadline = time.monotonic() + min(seconds, LONGEST_WAIT)
        with self._news:
            while (
                self.changes.position <= max(known, asker.position)
                and self._engine.settled() <= max(settled, asker.settled)
                and not self._ending
                and (left := deadline - time.monotonic()) > 0
            ):
                self._news.wait(left)

    def commit(self, asker: Asker, elements: list[bytes | None]) -> tuple[int, int | None]:
        """Apply a commit; returns its number, and its position, unless it was made before or by another device."""
        write_set, durability, position = write_set_from(elements)
        store, engine, changes = self._store, self._engine, self.changes
        sequence = engine.sequence
        if not sequence & 1 and changes.position == position and engine.sequence == sequence:
            write_set.base = sequence
        own: int | None = None

        def applied() -> None:
            nonlocal own
            own = asker.position = changes.position
            store._objects.forget([unpack_u64(key)[0] for key in write_set.operations[ITEMS]])

        with store._pins.held(write_set.files):
            number = engine.commit(write_set, store._file_check(write_set), applied, durability)
        asker.settled = engine.settled()
        store._notify()
        return number, own

    def asker(self, name: bytes) -> Asker:
        """The attached store of this name, one of whose connections has just come up."""
        with self._news:
            return self._askers.setdefault(name, Asker())

    # -- one for each kind of question: (asker, position known, list, progress) -> (list, position)

    def _get(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        table, key = present(elements, 2)
        get, name = self._engine.get, _table(table)
        return self.exact(lambda: [get(name, key)])

    def _get_items(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        wanted = [_item.unpack(element) for element in present(elements)]
        keys = [element[:8] for element in present(elements)]

        def read() -> list[bytes | None]:
            found: list[bytes | None] = []
            size = 0
            for record, (_, version) in zip(self._engine.get_items(keys), wanted, strict=True):
                if record is not None and version and unpack_u64(record)[0] == version:
                    found.append(b"")
                else:
                    found.append(record)
                    size += len(record or b"")
                    if size > MAX_ANSWER:
                        break
            return found

        return self.exact(read)

    def _pairs(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        table, start, stop, asked = present(elements, 4)
        limit, flags = _limit.unpack(asked)
        engine, name, reverse = self._engine, _table(table), bool(flags & REVERSE)

        def read() -> list[bytes | None]:
            if flags & KEYS_ONLY:
                return [*engine.keys(name, start, stop, min(limit, MAX_PAIRS), reverse)]
            found: list[bytes | None] = []
            first, last, size, left = start, stop, 0, min(limit, MAX_PAIRS)
            while left and size <= MAX_ANSWER:  # in steps: who asks for many is not to fill the owner's memory
                step = min(left, PAIRS_AT_ONCE)
                pairs = engine.pairs(name, first, last, step, reverse)
                for key, value in pairs:
                    found += (key, value)
                    size += len(value)
                if len(pairs) < step:
                    break
                left -= step
                first, last = (first, pairs[-1][0]) if reverse else (pairs[-1][0] + b"\0", last)
            return found

        return self.exact(read)

    def _position(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        table, key = present(elements, 2)
        name = _table(table)
        return self.exact(lambda: [struct.pack(">d", self._engine.position(name, key))])

    def _check(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        (versions, *names) = elements
        numbers = struct.unpack(f">{len(versions or b'') // 8}Q", versions or b"")
        expected = dict(zip(numbers[::2], numbers[1::2], strict=True))
        stand = {
            present([name])[0].decode(): None if item_id is None else int.from_bytes(item_id)
            for name, item_id in zip(names[::2], names[1::2], strict=True)
        }
        self._engine.check_reads(expected, stand)
        return self.exact(nothing)

    def _commit(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        number, own = self.commit(asker, elements)
        answer: list[bytes | None] = [number.to_bytes(8), b"" if own is None else b"own"]
        if own is not None:
            return answer, own
        return answer, self.exact(nothing)[1]

    def _wait(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        (asked,) = present(elements, 1)
        settled, milliseconds = struct.unpack(">QI", asked)
        self.wait(asker, known, settled, milliseconds / 1000)
        return self.exact(nothing)

    def _lease(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        what, asked = present(elements, 2)
        (count,) = struct.unpack(">I", asked)
        first, end = self._store._numbers.lease(_number_kind(what), count)
        return [first.to_bytes(8), end.to_bytes(8)], known

    def _return(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        what, unused = present(elements, 2)
        self._store._numbers.take_back(_number_kind(what), *struct.unpack(">QQ", unused))
        return [], known

    def _ask(self, asker: Asker, known: int, elements: list[bytes | None], progress: Progress) -> Answer:
        name, packed = present(elements, 2)
        arguments = plain_from(packed)
        if type(arguments) is not dict or not all(type(argument) is str for argument in arguments):
            raise UnsafePickle("the arguments of a call are named")

        result = self._store._errands.perform(name.decode(), arguments, progress)
        answer = plain_to(result, f"the result of {name.decode()!r}")
        return self.exact(lambda: [answer])


_ANSWERS: Final[dict[int, Callable[[Answers, Asker, int, list[bytes | None], Progress], Answer]]] = {
    GET: Answers._get,
    GET_ITEMS: Answers._get_items,
    PAIRS: Answers._pairs,
    POSITION: Answers._position,
    CHECK: Answers._check,
    COMMIT: Answers._commit,
    WAIT: Answers._wait,
    LEASE: Answers._lease,
    RETURN: Answers._return,
    ASK: Answers._ask,
}


def nothing() -> list[bytes | None]:
    """What is read where only the position matters."""
    return []


def _table(name: bytes) -> str:
    table = name.decode()
    if table not in TABLES:
        raise WireError("a question is about a table that there is not")
    return table


def _number_kind(what: bytes) -> str:
    if what not in (b"items", b"commits"):
        raise WireError("a question is about numbers that there are not")
    return what.decode()
