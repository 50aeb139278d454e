"""The `atop` command's frame: which commands there are, and how each ends.

Every way to end is decided in `run`: results are flushed before it returns, so that a full disk or a closed
pipe is noticed, and each error becomes words (or JSON) on standard error and an exit code. Errors that Atop
does not raise on purpose are shown with their traceback: they are bugs, and a report needs it.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import traceback

import click

from atop import AtopError, __version__
from atop.cli.output import STANDARD_OUTPUT, Output
from atop.cli.session import FAILED, INTERRUPTED, PIPE_CLOSED, WRONG_USE, Session, global_options

# Each command, in the order of the help, and the module that has it as NAME_command.
COMMANDS = {
    "init": "stores",
    "status": "status",
    "run": "run",
    "invite": "pairing",
    "join": "pairing",
    "devices": "devices",
    "import": "transfer",
    "export": "transfer",
    "query": "look",
    "browse": "browse",
    "history": "past",
    "undo": "past",
    "conflicts": "conflicts",
    "backup": "care",
    "restore": "care",
    "verify": "care",
    "compact": "care",
    "shell": "interactive",
    "demo": "demo",
}

# A missing module of these is a bug; one of any other package is an extra that is not installed.
OWN_PACKAGES = ("atop", "replication", "discovery")

INSTALL_EVERYTHING = "in Atop's source directory, python -m pip install '.[all]'"

COMPLETION_VARIABLE = "_ATOP_COMPLETE"


class Root(click.Group):
    """The group of all commands. A command's module is imported when the command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"atop.cli.{COMMANDS[cmd_name]}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)  # noqa: S101 - a test walks the table
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; `help` is as `--help`, and an unknown name is answered with those that are close to it."""
        if args and args[0] == "help":
            if not args[1:]:
                click.echo(ctx.get_help())
                ctx.exit()
            args = [args[1], "--help"]
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=3)
            hint = f" Did you mean {' or '.join(close)}?" if close else " 'atop --help' lists the commands."
            raise click.UsageError(f"there is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _show_version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).output.result({"version": __version__}, f"atop {__version__}")
        context.exit()


@click.command(
    cls=Root,
    params=global_options(hidden=False),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="--store and --json may also stand after the command. More on one: atop COMMAND --help",
)
@click.option("--version", is_flag=True, expose_value=False, callback=_show_version, help="Show the version and exit.")
@click.pass_context
def root(context: click.Context) -> None:
    """Keep contacts, calendar, mail, notes and files in a store of your own.

    \b
    Begin with one of these:
      atop import contacts.vcf calendar.ics mail.mbox
      atop status
      atop query contacts name --limit 20
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(WRONG_USE)


def run(arguments: list[str]) -> int:
    """Run the command with these arguments; returns the exit code (see the package's docstring)."""
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {"obj": Session()}, "atop", COMPLETION_VARIABLE, instruction)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no failure
    session = Session()
    try:
        code = _run(arguments, session)
        session.output.flush()
        return code
    except BrokenPipeError:
        _abandon_output()
        return PIPE_CLOSED
    except OSError as error:
        _tell(error, session.output)
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        with contextlib.suppress(OSError):
            session.output.error("Interrupted", "interrupted")
        _abandon_output()
        return INTERRUPTED


def _invoke(arguments: list[str], session: Session) -> int:
    try:
        with root.make_context("atop", arguments, obj=session) as context:
            root.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    return session.exit_code


def _run(arguments: list[str], session: Session) -> int:
    output = session.output
    # Errors in the arguments may come before --json has been read.
    output.json = "--json" in arguments
    try:
        return _invoke(list(arguments), session)
    except click.UsageError as error:
        usage = f"{error.ctx.get_usage()}\nTry '{error.ctx.command_path} --help'.\n\n" if error.ctx else ""
        output.error("UsageError", error.format_message(), usage)
        return WRONG_USE
    except click.ClickException as error:
        output.error(type(error).__name__, error.format_message())
        return FAILED
    except AtopError as error:
        output.error(type(error).__name__, str(error))
        return FAILED
    except OSError:
        raise
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] not in OWN_PACKAGES:
            output.error("MissingExtra", f"this needs the Python package {error.name!r}; {INSTALL_EVERYTHING}")
            return WRONG_USE
        if output.json:
            output.error(type(error).__name__, f"this is a bug in Atop: {error}")
        output.note(f"{traceback.format_exc()}atop: this is a bug in Atop; please report it with the lines above.")
        return FAILED


def _tell(error: OSError, output: Output) -> None:
    """Say what the operating system refused: a file that is not there, a full disk."""
    if error.filename == STANDARD_OUTPUT:
        _abandon_output()
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    reason = error.strerror or str(error)
    output.error(type(error).__name__, f"{names}: {reason}" if names else reason)


def _abandon_output() -> None:
    """Let nothing more be written to standard output, so that the interpreter's last flush cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
