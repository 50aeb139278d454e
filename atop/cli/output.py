"""Where the command's words go: results to standard output, everything else to standard error.

Three forms of a result, chosen once: JSON with `--json`; tables by `rich` on a terminal; elsewhere (a pipe, a
file) the same columns separated by tabs with nothing cut, so that other programs can read them.
Progress is drawn on standard error, only on a terminal, only after a second, and never with `--json`.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atop.cli.text import describe, json_text, plain

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

# Seconds that something may take before a progress bar is drawn.
PROGRESS_AFTER = 1.0

# What stands for a file's name in an error about it.
STANDARD_OUTPUT = "standard output"

# Rows of one table on a terminal: the widths of its columns are found from that many rows at a time.
ROWS_AT_A_TIME = 200


@contextlib.contextmanager
def _named() -> Iterator[None]:
    """Have errors of the system say that they are about standard output."""
    try:
        yield
    except OSError as error:
        error.filename = STANDARD_OUTPUT
        raise


class Output:
    """The two streams of one run of the command."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    def result(self, fields: Mapping[str, Any], *lines: str) -> None:
        """One result: these fields with `--json`, else these lines (which may hold text from the data)."""
        if self.json:
            self._write(json_text(fields))
        else:
            for line in lines:
                self._write(plain(line, keep_lines=True))

    def rows(self, columns: Sequence[str], rows: Iterable[tuple[Mapping[str, Any], Sequence[Any]]]) -> None:
        """Each row as an object with `--json`, else as a line of cells under these columns.

        A row is given in both forms: its fields, and its cells.
        """
        if self.json:
            for fields, _ in rows:
                self._write(json_text(fields))
        elif sys.stdout.isatty():
            remaining = iter(rows)
            while chunk := [cells for _, cells in itertools.islice(remaining, ROWS_AT_A_TIME)]:
                self._draw_table(columns, chunk)
        else:
            self._write("\t".join(map(plain, columns)))
            for _, cells in rows:
                self._write("\t".join(map(describe, cells)))

    def note(self, text: str) -> None:
        """A remark for a person on standard error; nothing with `--json`."""
        if not self.json:
            self._complain(plain(text, keep_lines=True))

    def skipped(self, fields: Mapping[str, Any], text: str) -> None:
        """Name a record that was left out, or of which a part was, on standard error."""
        self._complain(json_text({"skipped": fields}) if self.json else plain(f"left out: {text}"))

    def error(self, kind: str, message: str, usage: str = "") -> None:
        """Say on standard error why the command failed; `usage` is shown before it to a person."""
        if self.json:
            self._complain(json_text({"error": {"type": kind, "message": message}}))
        else:
            self._complain(plain(f"{usage}atop: {message}", keep_lines=True))

    @contextlib.contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """A progress bar that appears if the block takes long; tell what it gives how far things are."""
        progress = Progress(label, shown=not self.json and sys.stderr.isatty())
        try:
            yield progress
        finally:
            progress.close()

    def _draw_table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for position, column in enumerate(columns):
            values = [row[position] for row in rows if row[position] is not None]
            numbers = all(isinstance(value, int | float) for value in values)
            # A shortened text can still be recognized; a shortened number or date would be another one.
            exact = numbers or all(isinstance(value, datetime.date) for value in values)
            table.add_column(Text(plain(column)), justify="right" if numbers else "left", no_wrap=exact)
        for row in rows:
            table.add_row(*(Text(describe(cell), no_wrap=True, overflow="ellipsis") for cell in row))
        with _named():
            Console(file=sys.stdout, highlight=False).print(table)

    @staticmethod
    def flush() -> None:
        """Write out what is left of the results. Raises OSError, as every other method, if the disk is full."""
        with _named():
            sys.stdout.flush()

    @staticmethod
    def _write(line: str) -> None:
        try:
            sys.stdout.write(line + "\n")
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise

    @staticmethod
    def _complain(line: str) -> None:
        with contextlib.suppress(OSError):  # noticed, and told, when all is flushed at the end
            sys.stdout.flush()
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class Progress:
    """How far something is: drawn by `rich` once it has taken `PROGRESS_AFTER` seconds. For any thread."""

    def __init__(self, label: str, *, shown: bool) -> None:
        self._label = plain(label)
        self._done = 0
        self._total: int | None = None
        self._lock = threading.Lock()  # over drawing and closing, which race
        self._closed = False
        self._bar: Bar | None = None
        self._timer = threading.Timer(PROGRESS_AFTER, self._draw)
        self._timer.daemon = True
        if shown:
            self._timer.start()

    def update(self, done: int, total: int | None = None) -> None:
        """So much is done, of so much (None: not known)."""
        self._done, self._total = done, total
        self._show()

    def step(self, label: str) -> None:
        """This is being done now."""
        self._label = plain(label)
        self._show()

    def close(self) -> None:
        """Take the bar off the terminal."""
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()

    def _show(self) -> None:
        bar = self._bar
        if bar is not None:
            bar.update(bar.task_ids[0], description=self._label, completed=self._done, total=self._total)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Label(TextColumn):
            """The label as it is, without markup."""

            def render(self, task: Any) -> Text:
                return Text(task.description)

        bar = Bar(
            Label(""), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            console=Console(file=sys.stderr), transient=True,
        )  # fmt: skip
        bar.add_task(self._label, total=None)
        with self._lock:
            if self._closed:
                return
            bar.start()
            self._bar = bar
        self._show()
