"""A device in a process of its own, for tests that kill and stop it: `replica_process.py PATH NAME SIZE HOW PORT...`.

HOW is "found" (a new group), "join" or "open". The first PORT is its own, 0 for any; the others are those of other
devices. It reads commands from standard input, one a line, and answers each with one line of JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from linking import credentials

from atop import File, Item, Store, clock
from atop.engine import TABLES
from replication.manager import LOG_FILES, ReplicationManager
from replication.peers import Peers


class Note(Item):
    """What is written."""

    text: str = ""
    number: int = 0


class Document(Note):
    """A note with a file."""

    file: File | None = None


def blocks(size: int, seed: str) -> Iterator[bytes]:
    """Contents of a size, other ones for another seed."""
    for start in range(0, size, 1 << 20):
        block = hashlib.blake2b(f"{seed} {start}".encode()).digest() * (1 << 14)
        yield block[: size - start]


def main() -> None:
    path, name, size, how, own_port, *others = sys.argv[1:]
    ahead = int(float(os.environ.get("HOURS_AHEAD", "0")) * 3600e6)
    right = clock.wall
    clock.wall = lambda: right() + ahead
    about = credentials(name)
    manager = ReplicationManager(about.identity.device_id, members=int(size), joining=how == "join")
    manager.files.free_bytes = 0
    manager.log_files = int(os.environ.get("LOG_FILES", LOG_FILES))
    peers = Peers(about, manager)
    port = peers.listen("127.0.0.1", int(own_port))
    for other in others:
        peers.found(other, ["127.0.0.1"], int(other))
    tag = 0 if name == "a" else about.identity.device_id.tag
    store = Store(Path(path), replication=manager, tag=tag, durability=os.environ.get("DURABILITY", "flushed"))  # type: ignore[arg-type]
    print(json.dumps({"port": port}), flush=True)
    for line in sys.stdin:
        command, *arguments = line.split()
        try:
            answer = run(store, manager, peers, command, arguments)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
        if command == "close":
            return


def digest(store: Store, table: str) -> str:
    """What stands for all that is in a table."""
    hashed = hashlib.blake2b()
    for key, value in store._engine.pairs(table, b"", b"\xff" * 64, 10**9):
        hashed.update(b"%d %d " % (len(key), len(value)) + key + value)
    return hashed.hexdigest()


def run(store: Store, manager: ReplicationManager, peers: Peers, command: str, arguments: list[str]) -> Any:
    match command:
        case "write":
            begin = time.monotonic()
            Note(store, text=arguments[0])
            return {"seconds": time.monotonic() - begin, "at": time.time()}
        case "writes":
            begin = time.monotonic()
            for number in range(int(arguments[0])):
                Note(store, text=arguments[1], number=number)
            return {"seconds": time.monotonic() - begin}
        case "await":
            while store.head.number < int(arguments[0]):
                time.sleep(0.0002)
            return {"at": time.time()}
        case "fill":
            for _ in range(int(arguments[0])):
                Note(store, text="x" * int(arguments[1]))
            store._engine.checkpoint()
            return {}
        case "tables":
            return {table: digest(store, table) for table in TABLES}
        case "texts":
            return sorted(item.text for item in store.items() if isinstance(item, Note))
        case "status":
            status = manager.status()
            return {
                "role": status.role.value,
                "number": store.head.number,
                "chain": store.head.chain.hex(),
                "parted": status.parted,
                "links": len(peers.links()),
                "reachable": len(status.peers),
                "copying": status.copy is not None,
                "reconciling": status.reconcile.phase,
                "problem": status.problem,
            }
        case "add-file":  # title, size, seed
            title, size, seed = arguments
            with tempfile.TemporaryFile() as stream:
                for block in blocks(int(size), seed):
                    stream.write(block)
                stream.seek(0)
                file = store.file(stream, name=title)
            Document(store, text=title, file=file)
            return {"digest": file.digest.hex()}
        case "read-file":  # title, and how long it is waited for
            title, timeout = arguments
            found = next(item.file for item in store.items() if isinstance(item, Document) and item.text == title)
            with found.open(timeout=float(timeout)) as stream:
                return {"digest": hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=32)).hexdigest()}
        case "files":
            files = manager.status().files
            return {"missing": files.missing, "received": files.received_bytes, "fetched": files.fetched}
        case "documents":
            return sorted(item.text for item in store.items() if isinstance(item, Document))
        case "members":
            manager.set_members(int(arguments[0]))
            return {}
        case "found":
            peers.found(arguments[0], ["127.0.0.1"], int(arguments[0]))
            return {}
        case "verify":
            return store.verify().problems
        case "close":
            manager.close()
            peers.close()
            store.close()
            return {}
    raise ValueError(command)


if __name__ == "__main__":
    main()
