"""Splits vCard and iCalendar files at BEGIN and END, one component at a time, in bounded memory.

Promises: what is broken (a missing END, a line or component too large, text between components) is given as a
component with its `problem` and first line, and the next component is read as if nothing had happened.
Never looks inside a component: that is what `contentline` is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from atop.pim.incoming import MAX_RECORD_BYTES, MAX_RECORD_LINES

# Deepest nesting of components: VEVENT, VALARM and one more are all that the RFCs have.
MAX_DEPTH = 16


class Component(NamedTuple):
    """The physical lines of one component, BEGIN and END included.

    The name is in capitals. Where it is that of a container, the lines are properties of the container itself.
    """

    name: str
    line: int
    lines: list[bytes]
    problem: str = ""


def read_components(
    lines: Iterable[bytes | None],
    containers: frozenset[str] = frozenset(),
    max_bytes: int = MAX_RECORD_BYTES,
) -> Iterator[Component]:
    """The components of a file, in order; those in a container one by one, after its own properties."""
    splitter = _Splitter(containers, max_bytes)
    number = 0
    for number, line in enumerate(lines, 1):
        start = b"" if line is None else line[:6].upper()
        if start == b"BEGIN:":
            yield from splitter.begin(number, line or b"")
        elif start[:4] == b"END:":
            yield from splitter.end(number, line or b"")
        elif splitter.stack:
            splitter.add(line)
        else:
            yield from splitter.between(number, line)
    yield from splitter.finish(number)


class _Splitter:
    """Where the reader is: the containers and components that are open, and the lines of the outermost of these."""

    def __init__(self, containers: frozenset[str], max_bytes: int) -> None:
        self._containers = containers
        self._max_bytes = max_bytes
        self._open_containers: list[str] = []
        self._own: list[bytes] = []  # properties of the innermost container
        self._own_line = 0
        self._in_garbage = False  # text between components is reported once
        self.stack: list[str] = []  # names of the open components, outermost first
        self._lines: list[bytes] = []
        self._line = 0
        self._size = 0
        self._problem = ""

    def begin(self, number: int, line: bytes) -> Iterator[Component]:
        name = _name(line)
        if self.stack and (name in self._containers or (name == self.stack[0] and not self._is_agent())):
            yield self._broken(f"is not finished: END:{self.stack[0]} is missing before the next BEGIN:{name}")
        if not self.stack and name in self._containers:
            yield from self._flush_own()
            self._open_containers.append(name)
            return
        if not self.stack:
            yield from self._flush_own()
            self._line = number
        if len(self.stack) >= MAX_DEPTH:
            self._problem = f"is nested more than {MAX_DEPTH} deep"
        else:
            self.stack.append(name)
        self.add(line)

    def _is_agent(self) -> bool:
        """Whether a vCard begins inside another as the value of its AGENT (vCard 2.1)."""
        return bool(self._lines) and self._lines[-1].strip().upper().endswith(b"AGENT:")

    def end(self, number: int, line: bytes) -> Iterator[Component]:
        name = _name(line)
        if name in self.stack:
            self.add(line)
            del self.stack[len(self.stack) - 1 - self.stack[::-1].index(name) :]
            if not self.stack:
                yield Component(name, self._line, self._lines, self._problem)
                self._reset()
        elif name in self._containers:
            if self.stack:
                yield self._broken(f"is not finished: END:{self.stack[0]} is missing before END:{name}")
            yield from self._flush_own()
            if name in self._open_containers:
                self._open_containers.pop()
        elif self.stack:
            self.add(line)
        else:
            yield Component("", number, [], f"END:{name} without BEGIN:{name}")

    def add(self, line: bytes | None) -> None:
        """A line of the open component."""
        if line is None:
            self._problem = "has a line that is too long"
            self._lines.clear()
        elif not self._problem:
            self._size += len(line)
            if self._size > self._max_bytes or len(self._lines) >= MAX_RECORD_LINES:
                self._problem = f"is larger than {self._max_bytes >> 20} MiB, or {MAX_RECORD_LINES} lines"
                self._lines.clear()
            else:
                self._lines.append(line)

    def between(self, number: int, line: bytes | None) -> Iterator[Component]:
        """A line outside of any component: a property of the container, or nothing that belongs here."""
        if line is not None and not line.strip():
            return
        if self._open_containers and line is not None:
            if not self._own:
                self._own_line = number
            self._size += len(line)
            if self._size <= self._max_bytes and len(self._own) < MAX_RECORD_LINES:
                self._own.append(line)
        elif not self._in_garbage:
            self._in_garbage = True
            yield Component("", number, [], "text that belongs to no record")

    def finish(self, number: int) -> Iterator[Component]:
        """The end of the file."""
        if self.stack:
            yield self._broken(f"is not finished: the file ends at line {number} without END:{self.stack[0]}")
        yield from self._flush_own()

    def _flush_own(self) -> Iterator[Component]:
        if self._own and self._open_containers:
            yield Component(self._open_containers[-1], self._own_line, self._own)
            self._own = []
        self._size = 0
        self._in_garbage = False

    def _broken(self, reason: str) -> Component:
        broken = Component(self.stack[0], self._line, [], self._problem or reason)
        self.stack.clear()
        self._reset()
        return broken

    def _reset(self) -> None:
        self._lines = []
        self._size = 0
        self._problem = ""
        self._in_garbage = False


def _name(line: bytes) -> str:
    return line.partition(b":")[2].strip().upper().decode("utf-8", "replace")
