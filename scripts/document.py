"""Writes the parts of docs/ that are generated from the code; with --check, only says which are stale.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is written
by hand and kept as it is. Exit code 1 with --check when a page is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from atop.cli.root import COMMANDS, root

DOCS = Path(__file__).resolve().parent.parent / "docs"

GENERATED = re.compile(r"(?<=<!-- generated: )(?P<name>[\w-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def usage_of(name: str, command: click.Command) -> str:
    """`atop query [OPTIONS] POOL INDEX`."""
    pieces = [f"atop {name}", "[OPTIONS]"]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            word = parameter.metavar or (parameter.name or "").upper()
            pieces.append(word if parameter.required or word.startswith("[") else f"[{word}]")
    return " ".join(pieces)


def text_of(help_text: str) -> str:
    """A help text as Markdown: what click is told not to wrap becomes a code block."""
    paragraphs = []
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            lines = paragraph[2:].split("\n")
            heading = [line for line in lines if not line.startswith("  ")]
            code = [line[2:] for line in lines if line.startswith("  ")]
            paragraphs.append("\n".join([*heading, "", "```sh", *code, "```"]).strip())
        else:
            paragraphs.append(paragraph)
    return "\n\n".join(paragraphs)


def options_of(command: click.Command) -> Iterator[str]:
    """The rows of a table of the options that a command shows."""
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        metavar = "" if parameter.is_flag or not parameter.metavar else f" *{parameter.metavar}*"
        yield f"| {names}{metavar} | {parameter.help} |"


def section_of(name: str, command: click.Command | None) -> str:
    """One command, and those that it has."""
    if command is None or not command.help:
        raise SystemExit(f"the command {name!r} is missing or has no help")
    section = [f"### atop {name}", f"`{usage_of(name, command)}`", text_of(command.help)]
    rows = list(options_of(command))
    if rows:
        section.append("\n".join(["| option | meaning |", "| --- | --- |", *rows]))
    if isinstance(command, click.Group):
        section += [section_of(f"{name} {below}", command.commands[below]) for below in command.commands]
    return "\n\n".join(section)


def command_reference() -> str:
    """Every command: how it is called, what it does, its options."""
    context = click.Context(root, info_name="atop")
    return "\n\n".join(section_of(name, root.get_command(context, name)) for name in COMMANDS)


PARTS = {"commands": command_reference}


def renew(page: str) -> str:
    """The page with its generated parts as the code has them now."""
    return GENERATED.sub(lambda match: f"{match['name']} -->\n\n{PARTS[match['name']]()}\n\n", page)


def stale_pages() -> dict[Path, str]:
    """Each page that is not as the code has it, with its new text."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
    return {path: renewed for path, page in pages.items() if (renewed := renew(page)) != page}


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit code."""
    stale = stale_pages()
    for path, text in stale.items():
        if "--check" in arguments:
            print(f"{path.relative_to(DOCS.parent)} is stale: run python scripts/document.py")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
