"""Looking at a pickle without loading it.

The unpickler can be made to take much memory, or to overflow the stack, by a few bytes. A pickle that `scan` accepts
does neither: it uses just the instructions that Python writes for stored values, keeps what it makes in the order in
which it makes it, and nests tuples no deeper than values may be.

The pickles of a store's own database are loaded without this, which takes many times as long as loading. What another
device has sent is scanned, and `Store.verify` scans all there is.
"""

from __future__ import annotations

import pickle

from atop.errors import UnsafePickle

# How deep tuples and frozensets may be nested. Stored values may be 50 deep; the journal wraps them a few times.
MAX_NESTING = 100

# What follows an instruction: so many bytes; or a length of so many bytes, and that many.
_PLAIN = {
    pickle.PROTO: 1,
    pickle.FRAME: 8,
    pickle.NONE: 0,
    pickle.NEWTRUE: 0,
    pickle.NEWFALSE: 0,
    pickle.BININT: 4,
    pickle.BININT1: 1,
    pickle.BININT2: 2,
    pickle.BINFLOAT: 8,
    pickle.EMPTY_LIST: 0,
    pickle.EMPTY_DICT: 0,
    pickle.EMPTY_SET: 0,
    pickle.EMPTY_TUPLE: 0,
    pickle.MARK: 0,
    pickle.APPEND: 0,
    pickle.APPENDS: 0,
    pickle.SETITEM: 0,
    pickle.SETITEMS: 0,
    pickle.ADDITEMS: 0,
    pickle.FROZENSET: 0,
    pickle.TUPLE: 0,
    pickle.TUPLE1: 0,
    pickle.TUPLE2: 0,
    pickle.TUPLE3: 0,
    pickle.MEMOIZE: 0,
    pickle.BINGET: 1,
    pickle.LONG_BINGET: 4,
    pickle.STACK_GLOBAL: 0,
    pickle.REDUCE: 0,
    pickle.STOP: 0,
}
_COUNTED = {
    pickle.LONG1: 1,
    pickle.LONG4: 4,
    pickle.SHORT_BINUNICODE: 1,
    pickle.BINUNICODE: 4,
    pickle.BINUNICODE8: 8,
    pickle.SHORT_BINBYTES: 1,
    pickle.BINBYTES: 4,
    pickle.BINBYTES8: 8,
}
_OPERANDS = {code[0]: (size, False) for code, size in _PLAIN.items()}
_OPERANDS |= {code[0]: (size, True) for code, size in _COUNTED.items()}

_MAKERS = frozenset(
    code[0]
    for code in (
        *_COUNTED,
        pickle.NONE,
        pickle.NEWTRUE,
        pickle.NEWFALSE,
        pickle.BININT,
        pickle.BININT1,
        pickle.BININT2,
        pickle.BINFLOAT,
        pickle.EMPTY_LIST,
        pickle.EMPTY_DICT,
        pickle.EMPTY_SET,
        pickle.EMPTY_TUPLE,
    )
)
# Instructions that take what is above the last mark into what is below it.
_FILLERS = frozenset(code[0] for code in (pickle.APPENDS, pickle.SETITEMS, pickle.ADDITEMS))
_TUPLES = {pickle.TUPLE1[0]: 1, pickle.TUPLE2[0]: 2, pickle.TUPLE3[0]: 3}


def scan(data: bytes, start: int = 0) -> None:
    """Return if the pickle in `data`, from `start` on, can be loaded without harm. Raises `UnsafePickle`."""
    try:
        _scan(data, start)
    except (IndexError, KeyError, ValueError) as error:
        raise UnsafePickle("a record is damaged: it is no pickle of stored values") from error


def _scan(data: bytes, at: int) -> None:
    stack: list[int] = []  # of each value: how deep tuples are nested in it
    marks: list[int] = []
    memo: list[int] = []
    while True:
        code = data[at]
        size, counted = _OPERANDS[code]
        argument = int.from_bytes(data[at + 1 : at + 1 + size], "little")
        at += 1 + size + (argument if counted else 0)
        if at > len(data):
            raise IndexError(at)
        if code in _MAKERS:
            stack.append(0)
        elif code == pickle.MEMOIZE[0]:
            memo.append(stack[-1])
        elif code == pickle.MARK[0]:
            marks.append(len(stack))
        elif code in _FILLERS:
            del stack[marks.pop() :]
        elif code in _TUPLES:
            _make_tuple(stack, len(stack) - _TUPLES[code])
        elif code in (pickle.TUPLE[0], pickle.FROZENSET[0]):
            _make_tuple(stack, marks.pop())
        elif code in (pickle.BINGET[0], pickle.LONG_BINGET[0]):
            stack.append(memo[argument])
        elif code in (pickle.APPEND[0], pickle.STACK_GLOBAL[0], pickle.REDUCE[0]):
            stack[-2:] = [max(stack[-2:])] if code == pickle.REDUCE[0] else stack[-2:-1]
        elif code == pickle.SETITEM[0]:
            del stack[-2:]
        elif code == pickle.STOP[0]:
            return


def _make_tuple(stack: list[int], first: int) -> None:
    if first < 0:
        raise IndexError(first)
    depth = 1 + max(stack[first:], default=0)
    if depth > MAX_NESTING:
        raise UnsafePickle("a record nests values deeper than Atop stores them: it was not loaded")
    stack[first:] = [depth]
