"""One tortured device: a process that does what it is told, a line of JSON at a time, and says what is done.

    device.py PATH NAME PORT PEER...        opens it; PEER is an address
    device.py PATH NAME PORT --join CODE ADDRESS

What it has written is said, and flushed, before the next write begins: so whoever reads it knows what a killed one had
acknowledged.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from typing import Any

from atop import AtopError, Item, ref
from atop.engine import TABLES
from replication import Device, reconcile

SHARED = 4  # items that all devices write to
REAL = time.time_ns


class Note(Item, type_name="torture.Note"):
    key: str = ""
    first: str = ""
    second: str = ""
    words: list[str] = []
    marks: set[str] = set()
    photo: Any = None
    about: Item | None = None
    part_of: Item | None = ref(on_delete="cascade")


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def prepare(device: Device) -> None:
    """What all have before it begins."""
    store = device.store
    with store.transaction("begin"):
        notes = store.pool("notes", indexes=["key", "first"])
        store.pool("others", indexes=["second"])
        for number in range(SHARED):
            notes.add(Note(store, key=f"shared {number}"))


class Worker:
    """Writes at random. Every value is written once only, so it can be told where it has gone."""

    def __init__(self, device: Device, name: str, run: int) -> None:
        self._device, self._name = device, name
        self._run, self._count = run, 0
        self._own: list[str] = []

    def work(self, count: int, seed: int, pause: float) -> None:
        chance = random.Random(seed)
        for _ in range(count):
            value = f"{self._name}.{self._run}.{self._count}"
            self._count += 1
            what = chance.choices(
                ["create", "set", "word", "mark", "delete", "file", "join", "child"], [6, 6, 3, 3, 1, 1, 2, 1]
            )[0]
            target = f"shared {chance.randrange(SHARED)}"
            if what == "delete":
                if not self._own:
                    continue
                target = chance.choice(self._own)
            attribute = chance.choice(["first", "second"])
            say(begin=what, value=value, target=target, attribute=attribute)
            try:
                done = self._do(what, value, target, attribute)
            except AtopError as error:
                say(failed=what, value=value, target=target, error=f"{type(error).__name__}: {error}")
            else:
                say(**{"done" if done else "skipped": what}, value=value, target=target, attribute=attribute)
            time.sleep(chance.random() * pause)

    def _find(self, key: str) -> Any:
        return next(self._device.store.pool("notes", create=False).query("key", key=key), None)

    def _do(self, what: str, value: str, target: str, attribute: str) -> bool:
        """Do one thing; False if the item is away: as it is for a moment while a device gives way."""
        store = self._device.store

        def change() -> bool:
            item = self._find(target)
            if what in ("create", "file", "child"):
                photo = store.file(value.encode() * 50, name=value) if what == "file" else None
                note = Note(store, key=value, first=value, photo=photo, about=item)
                if what == "child":
                    note.part_of = item
                store.pool("notes").add(note)
            elif item is None:
                return False
            elif what == "set":
                setattr(item, attribute, value)
            elif what == "word":
                item.words.append(value)
            elif what == "mark":
                item.marks.add(value)
            elif what == "delete":
                item.delete()
            elif what == "join":
                store.pool("others").add(item)
            return True

        done = store.transact(change, label=f"{what} {value}")
        if what == "create":
            self._own.append(value)
        elif what == "delete" and done:
            self._own.remove(target)
        return done


def report(device: Device) -> dict[str, Any]:
    """How it stands."""
    status = device.status()
    return {
        "role": status.role, "commit": status.commit, "chain": status.chain, "in_sync": status.in_sync,
        "work": [work.what for work in status.work], "missing": status.files.missing, "problems": status.problems,
        "conflicts": status.conflicts, "replayed": status.replayed, "merged": status.merged,
    }  # fmt: skip


def contents(device: Device) -> dict[str, Any]:
    """All that is there, and all that ever was, as far as the history tells."""
    store = device.store
    engine = store._engine
    tables = {
        table: hashlib.blake2b(repr(engine.pairs(table, b"", b"\xff" * 64, 10**9)).encode()).hexdigest()
        for table in TABLES
    }
    notes = {
        item.key: {"first": item.first, "second": item.second, "words": list(item.words), "marks": sorted(item.marks)}
        for item in store.items()
        if isinstance(item, Note)
    }
    conflicts = [[c.kind, c.about, c.attribute, repr(c.kept), repr(c.other)] for c in store.conflicts]
    past = [repr(change.before) for commit in store.history() for change in commit.changes]
    return {"tables": tables, "notes": notes, "conflicts": conflicts, "past": past}


def main() -> None:
    path, name, port, *rest = sys.argv[1:]
    if name in "bd":  # these take a copy when they give way, the others roll back
        reconcile.WORTH_SECONDS, reconcile.COPY_BYTES_PER_SECOND = 0.0, 1e15  # type: ignore[misc]
    options: dict[str, Any] = {"name": name, "port": int(port), "multicast": False}
    if rest[:1] == ["--join"]:
        device = Device.join(path, rest[1], address=rest[2], **options)
    else:
        device = Device.open(path, peers=rest, **options)
    offset = 0
    time.time_ns = lambda: REAL() + offset
    worker = Worker(device, name, REAL() // 1_000_000)
    say(ready=True)
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        match command:
            case "prepare":
                prepare(device)
                say(ok=True)
            case "invite":
                say(code=device.invite().code)
            case "work":
                worker.work(*arguments)
                say(ok=True)
            case "clock":
                offset = int(arguments[0] * 1e9)
                say(ok=True)
            case "report":
                say(report=report(device))
            case "contents":
                say(contents=contents(device))
            case "verify":
                say(problems=device.store.verify().problems)
            case "close":
                device.close()
                say(ok=True)
                return


if __name__ == "__main__":
    main()
