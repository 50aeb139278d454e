"""The `atop` command: a person's way to the store.

Promises, for every command:

- The store is `--store PATH`, else `$ATOP_STORE`, else the user's data directory. A store that is not there
  is made by `init`, `import`, `run`, `join` and `browse` (and put back by `restore`), by nothing else.
- With `--json`, standard output holds JSON objects, one a line, and nothing else; what would be words on
  standard error is a JSON object a line too.
- Exit codes: 0 done, 1 failed, 2 wrong use, 3 done in part (each record that was skipped is named on standard
  error); 130 after Ctrl-C and 141 when the reader of a pipe went away, as with other programs.

Never writes a control character that comes from data to a terminal, and never shows a traceback for an error
that the store raises on purpose.

Importing this package needs none of the extra: what a command needs is imported when it runs.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

NEEDED = ("click", "rich", "platformdirs")


def main(arguments: list[str] | None = None) -> int:
    """Run the command with these arguments (default: those of the process); returns the exit code."""
    try:
        from atop.cli.root import run
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        sys.stderr.write(
            f"atop: the command needs the Python package {error.name!r}, which is not installed.\n"
            "In Atop's source directory, install everything:  python -m pip install '.[all]'\n"
            "(or what the command alone needs:                python -m pip install '.[cli]')\n"
        )
        return 2
    return run(sys.argv[1:] if arguments is None else arguments)
