"""The demonstration behind `scripts/demo`: what a person does first with Atop, on sample data.

Every command that it prints is run as printed, by the installed `atop`; the change in the middle is Python, also run
as printed. Works in one directory, given as the argument, and touches nothing else. A directory that an earlier
demonstration made is made anew; any other that is not empty is refused.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

SAMPLE_DATA = Path(__file__).with_name("sample_data.py")
SAMPLES = ("contacts.vcf", "calendar.ics", "mail.mbox")
ATOP = Path(sys.executable).with_name("atop")

# In every directory that a demonstration made, so that only those are made anew.
MARK = "made-by-atop-demo"

CHANGE = """
from atop import Store
import atop.pim                                   # the classes of contacts, events, messages and notes

with Store({store!r}) as store:
    with store.transaction("five friends move to Lisbon"):
        for contact in store.pool("contacts").query("name", limit=5):
            contact.city = "Lisbon"
            contact.categories.append("moved")
"""


class Demonstration:
    """Runs commands in front of a person."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self._bold, self._faint, self._plain = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("",) * 3

    def say(self, text: str) -> None:
        """A heading for what comes next."""
        print(f"\n{self._bold}{text}{self._plain}", flush=True)

    def run(self, *arguments: str) -> None:
        """Show a command and run it; ends the demonstration if it fails."""
        print(f"{self._faint}$ {shlex.join(['atop', *arguments])}{self._plain}", flush=True)
        environment = {**os.environ, "ATOP_STORE": str(self.store)}
        subprocess.run([ATOP, *arguments], cwd=self.directory, env=environment, check=True)

    def run_python(self, code: str) -> None:
        """Show a piece of Python and run it."""
        print("\n".join(f"{self._faint}    {line}{self._plain}" for line in code.strip().split("\n")), flush=True)
        subprocess.run([sys.executable, "-c", code], cwd=self.directory, check=True)


def prepare(directory: Path) -> None:
    """An empty directory, marked as ours. Raises SystemExit if something else is in it."""
    if directory.exists() and not directory.is_dir():
        raise SystemExit(f"demo: {directory} is not a directory; name another: scripts/demo DIRECTORY")
    if directory.is_dir() and any(directory.iterdir()):
        if not (directory / MARK).is_file():
            raise SystemExit(f"demo: {directory} is not empty; name another: scripts/demo DIRECTORY")
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()


def demonstrate(directory: Path) -> None:
    """The whole demonstration, in this directory."""
    demonstration = Demonstration(directory)
    say, run = demonstration.say, demonstration.run
    say(f"Sample data: an address book, a calendar and a mailbox, in {directory}")
    subprocess.run([sys.executable, SAMPLE_DATA, directory], check=True)

    say("Import them. The store is made by the way.")
    run("import", *SAMPLES)
    say("Import the address book again: what is there already is not duplicated.")
    run("import", SAMPLES[0])
    say("What is in the store?")
    run("status")
    say("Look things up, in the order of any index, from any point of it.")
    run("query", "contacts", "name", "--limit", "5", "--columns", "name,email,city,categories")
    run("query", "events", "start", "--start", "2025-01-01", "--limit", "5", "--columns", "start,summary,location")
    say("Change something from Python: one transaction, objects that are just there.")
    demonstration.run_python(CHANGE.format(store=str(demonstration.store)))
    run("query", "contacts", "name", "--limit", "5", "--columns", "name,email,city,categories")
    say("Every commit is in the history, and can be taken back.")
    run("history", "--limit", "1")
    run("undo", "--last")
    run("query", "contacts", "name", "--limit", "5", "--columns", "name,email,city,categories")
    say("Is everything in order? Every page, record, index and file is checked.")
    run("verify")
    say("And now on two devices: a laptop and a desktop, both on this machine.")
    run("demo", "devices")
    say("Done. The sample store is yours to play with:")
    print_next_steps(demonstration.store)


def print_next_steps(store: Path) -> None:
    """What to try next, ready to be pasted."""
    atop = shlex.quote(str(ATOP))
    print(
        f"""
    export ATOP_STORE={shlex.quote(str(store))}
    alias atop={atop}
    atop query messages date --reverse --limit 10
    atop --json query contacts name --limit 1
    atop export contacts everyone.csv
    atop shell
    atop --help

and with your own data, in your own store (unset ATOP_STORE first):

    atop import YOUR-CONTACTS.vcf YOUR-CALENDAR.ics YOUR-MAIL.mbox
"""
    )


def main() -> int:
    """Run the demonstration; returns the exit code."""
    directory = Path(sys.argv[1]).absolute()
    prepare(directory)
    try:
        demonstrate(directory)
    except subprocess.CalledProcessError as error:
        print(f"demo: a step failed (exit code {error.returncode}); its message is above", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
