"""`atop demo`: two devices on this machine, before the eyes of a person.

Every command that it shows is run as shown, by this installation. It works in one directory, and touches nothing else;
what it started has ended when it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from atop import StoreError
from atop.cli.session import Session, StoreCommand, pass_session

# In every directory that a demonstration made, so that only those are made anew.
MARK = "made-by-atop-demo"

# Seconds after which something that should take one or two has failed.
PATIENCE = 60

GIVEN = ("Ada", "Bob", "Chloé", "Dmitri", "Elif", "Farid", "Grażyna", "Hana", "Íñigo", "Jun", "Kofi", "Líam")
FAMILY = ("Ångström", "Brandt", "Costa", "Dvořák", "Eriksen", "Fontaine", "García", "Hughes", "Ivanova", "Jansen")
CITIES = ("Lisbon", "Zürich", "Kraków", "Nantes", "Tromsø", "Galway", "Bologna")


@click.command("demo", cls=StoreCommand)
@click.argument("directory", required=False, type=click.Path(file_okay=False, path_type=Path))
@pass_session
def demo_command(session: Session, *, directory: Path | None) -> None:
    """Show two devices, a laptop and a desktop, on this machine.

    An address book is imported on one and is there on the other; one is killed, the other goes on; the first comes
    back and is equal. Works in DIRECTORY [default: a temporary one, removed at the end].

    \b
    Examples:
      atop demo
      atop demo ~/atop-demo
    """
    with contextlib.ExitStack() as undo:
        if directory is None:
            directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="atop-demo-")))
        prepare(directory)
        demonstration = undo.enter_context(contextlib.closing(Demonstration(session, directory.absolute())))
        demonstration.show()


def prepare(directory: Path) -> None:
    """An empty directory, marked as ours. Raises StoreError if something else is in it."""
    if directory.is_dir() and any(directory.iterdir()):
        if not (directory / MARK).is_file():
            raise StoreError(f"{directory} is not empty: name another directory", directory)
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()


def cards(start: int, count: int) -> str:
    """An address book of invented people, as vCard 4.0."""
    people = []
    for number in range(start, start + count):
        given, family = GIVEN[number % len(GIVEN)], FAMILY[number // len(GIVEN) % len(FAMILY)]
        people.append(
            "BEGIN:VCARD\r\nVERSION:4.0\r\n"
            f"UID:urn:uuid:00000000-0000-4000-8000-{number:012d}\r\n"
            f"FN:{given} {family}\r\nN:{family};{given};;;\r\n"
            f"EMAIL:{number}@example.org\r\nADR:;;;{CITIES[number % len(CITIES)]};;;\r\nEND:VCARD\r\n"
        )
    return "".join(people)


class Demonstration:
    """Runs commands in front of a person."""

    def __init__(self, session: Session, directory: Path) -> None:
        self._session = session
        self._directory = directory
        self._running: dict[str, subprocess.Popen[str]] = {}

    def show(self) -> None:
        """All of it. Raises StoreError where a step fails."""
        (self._directory / "contacts.vcf").write_text(cards(0, 120), encoding="utf-8", newline="")
        (self._directory / "more.vcf").write_text(cards(120, 5), encoding="utf-8", newline="")
        self.say("The laptop has an address book.")
        self.run("laptop", "import", "contacts.vcf")
        self.start("laptop", "run", "--name", "laptop")
        self.say("The desktop is to have it too: one command here, which shows a code ...")
        with self.inviting() as (code, port):
            self.say(
                "... and one there, which takes it. (They would find each other; on one machine an address is surer.)"
            )
            self.run("desktop", "join", code, "--name", "desktop", "--address", f"127.0.0.1:{port}", "--yes")
        self.start("desktop", "run")
        self.say("The address book is there:")
        self.run("desktop", "query", "contacts", "name", "--limit", "3", "--columns", "name,email,city")
        self.equal()

        self.say("The laptop dies, in the middle of everything (kill -9).")
        self.kill("laptop")
        self.say("Work goes on, on the desktop:")
        begun = time.monotonic()
        self.run("desktop", "import", "more.vcf")
        self.note(f"({time.monotonic() - begun:.1f} s, of which the program's start is the most)")
        self.run("desktop", "status")

        self.say("The laptop is back:")
        begun = time.monotonic()
        self.start("laptop", "run")
        head = self.equal()
        self.note(f"(started and equal after {time.monotonic() - begun:.1f} s)")
        self.run("laptop", "status")
        self.say(
            f"Both end with commit {head['commit']}, chain {head['chain'][:16]}...: the same history, to the byte."
        )
        self._session.output.result({"commit": head["commit"], "chain": head["chain"]})

    # -- what a person sees

    def say(self, text: str) -> None:
        """A heading for what comes next."""
        self.note(f"\n{text}")

    def note(self, text: str) -> None:
        """A remark; nothing with --json."""
        if not self._session.output.json:
            self._session.output.result({}, text)
            self._session.output.flush()

    def _show(self, device: str, arguments: tuple[str, ...], background: str = "") -> list[str]:
        self.note(f"{device}$ {shlex.join(['atop', *arguments])}{background}")
        return [sys.executable, "-m", "atop.cli", *arguments]

    def _environment(self, device: str) -> dict[str, str]:
        return {**os.environ, "ATOP_STORE": str(self._directory / device)}

    # -- commands

    def run(self, device: str, *arguments: str) -> None:
        """Show a command and run it on a device."""
        command = self._show(device, arguments)
        done = subprocess.run(
            command, cwd=self._directory, env=self._environment(device), capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        if done.returncode:
            raise StoreError(f"a step failed: {done.stderr.strip() or done.stdout.strip()}", self._directory)
        self.note(done.stdout.rstrip())

    def start(self, device: str, *arguments: str) -> None:
        """Show a command and leave it running on a device, once it has said that it runs."""
        self._running[device] = process = self._begin(device, arguments, " &")
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        self.note(process.stdout.readline().rstrip())

    def _begin(self, device: str, arguments: tuple[str, ...], background: str = "") -> subprocess.Popen[str]:
        log = (self._directory / f"{device}.log").open("a")
        with log:
            return subprocess.Popen(
                self._show(device, arguments, background),
                cwd=self._directory,
                env={**self._environment(device), "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @contextlib.contextmanager
    def inviting(self) -> Iterator[tuple[str, int]]:
        """The code that the laptop shows, and its port; ends when the device that has joined has everything."""
        process = self._begin("laptop", ("invite", "--yes"))
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            shown = process.stdout.readline().rstrip()
            self.note(shown)
            yield shown.split()[-1], int(self._status("laptop")["device"]["port"])
            rest, _ = process.communicate(timeout=PATIENCE)
            if process.returncode:
                raise StoreError(f"the invitation failed: see {self._directory / 'laptop.log'}", self._directory)
            said = [line for line in rest.splitlines() if "joined" in line or "everything" in line]
            self.note("\n".join(said))
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def kill(self, device: str) -> None:
        """End the process of a device, as a power failure would."""
        process = self._running.pop(device)
        self.note(f"{device}$ kill -9 {process.pid}")
        process.kill()
        process.communicate()

    def _status(self, device: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "atop.cli", "--json", "status"]
        done = subprocess.run(command, env=self._environment(device), capture_output=True, text=True, check=False)
        if done.returncode:
            raise StoreError(f"{device} does not say how it stands: {done.stderr.strip()}", self._directory)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def equal(self) -> dict[str, Any]:
        """Wait until both devices say that they are in sync, and are; returns where."""
        deadline = time.monotonic() + PATIENCE
        while True:
            heads = [self._status(device) for device in ("laptop", "desktop")]
            same = len({(head["commit"], head["chain"]) for head in heads}) == 1
            if same and all(head.get("device", {}).get("in_sync") for head in heads):
                return heads[0]
            if time.monotonic() >= deadline:
                raise StoreError("the two devices did not become equal in time", self._directory)

    def close(self) -> None:
        """End what runs."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
