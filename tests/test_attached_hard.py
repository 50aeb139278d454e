"""Several processes share a store, and one of them is killed, stopped, mad, or somebody else's."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import signal
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from victims import Say, Victim
from waiting import until

from atop import Item, Store, StoreBusy, StoreClosed, StoreReadOnly, answering, attached, joining, serving
from atop.owner import LOCK_NAME, SOCKET_NAME, holder_of
from atop.wire import (
    ASK,
    COMMIT,
    GET,
    HELLO,
    KEYS_ONLY,
    MAX_FRAME,
    OK,
    PAIRS,
    REFUSED,
    Channel,
    pack_hello,
    pack_list,
    unpack_list,
    unpack_news,
)

CACHE = 4 << 20


class Mark(Item, type_name="attached.Mark"):
    number: int = 0
    text: str = ""


def own(path: Path, say: Say) -> None:
    """Own a store until killed, or told to end."""
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    logging.disable()
    with Store(path, cache_size=CACHE) as store:
        marks = store.pool("marks", indexes=["number"])
        with store.transaction():
            for number in range(10):
                marks.add(Mark(store, number=number, text="x" * 1000))
        store.provide("commits", lambda: store.head.number)
        say("ready")
        done.wait()
        assert store.verify().problems == []


@pytest.fixture
def owner(store_path: Path) -> Iterator[Victim]:
    victim = Victim(lambda say: own(store_path, say))
    assert victim.line() == "ready"
    yield victim
    if victim.status is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGCONT)
        os.kill(victim.pid, signal.SIGTERM)
        victim.wait()


def connect(path: Path) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(20)
    connected.connect(os.fspath(path / "local" / SOCKET_NAME))
    return connected


def welcomed(path: Path) -> tuple[Channel, socket.socket]:
    """A connection that has said hello."""
    connected = connect(path)
    channel = Channel(connected)
    channel.send(HELLO, pack_hello(b"12345678"))
    kind, _ = channel.receive()
    assert kind == OK
    return channel, connected


def ended(connected: socket.socket) -> bool:
    """Whether the other side ends the connection, and has said nothing more than what it had to."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while connected.recv(1 << 16):
            pass
    connected.close()
    return True


def check_well(path: Path, owner: Victim) -> None:
    """The owner is there, and answers."""
    with Store(path, cache_size=CACHE) as store:
        assert store.owner_pid == owner.pid
        assert [mark.number for mark in store.pool("marks").query("number", limit=3)] == [0, 1, 2]


# -- kills


@pytest.mark.parametrize("seed", [1])
def test_of_what_several_writers_were_told_nothing_is_lost_or_done_twice(store_path: Path, seed: int) -> None:
    """The owner is killed again and again; whoever takes over is killed in turn."""
    chance = random.Random(seed)
    acknowledged: list[str] = []
    running: list[tuple[Victim, threading.Thread]] = []
    names = iter(range(1_000))

    def write(name: int, say: Say) -> None:
        store = Store(store_path, cache_size=CACHE)
        marks = store.pool("marks", indexes=["number"])
        shared = next(iter(marks))

        def step(label: str) -> None:
            marks.add(Mark(store, text=label))
            shared.number += 1

        for count in range(100_000):
            label = f"{name}-{count}"
            store.transact(step, label, label=label)
            say(label)

    def listen(victim: Victim) -> None:
        with contextlib.suppress(ValueError):  # closed under it, at the end
            while line := victim.line():
                acknowledged.append(line)

    def start() -> None:
        name = next(names)
        victim = Victim(lambda say: write(name, say))
        thread = threading.Thread(target=listen, args=(victim,))
        thread.start()
        running.append((victim, thread))

    with Store(store_path, cache_size=CACHE) as store:
        store.pool("marks", indexes=["number"]).add(Mark(store))
    for _ in range(3):
        start()
    for _ in range(8):
        before = len(acknowledged)
        until(lambda before=before: len(acknowledged) > before + 20)
        threading.Event().wait(chance.uniform(0, 0.02))
        pid = holder_of(store_path / "local").pid
        assert pid is not None
        victim, thread = next((v, t) for v, t in running if v.pid == pid)
        running.remove((victim, thread))
        victim.kill()
        thread.join()
        victim.wait()
        start()
    for victim, thread in running:
        victim.kill()
        thread.join()
        victim.wait()
    with Store(store_path, cache_size=CACHE) as store:
        assert store.owner_pid is None
        labels = Counter(commit.label for commit in store.history() if "-" in commit.label)
        assert not set(acknowledged) - set(labels)
        assert max(labels.values()) == 1
        texts = Counter(mark.text for mark in store.items() if isinstance(mark, Mark) and mark.text)
        assert texts == labels
        assert next(iter(store.pool("marks"))).number == len(labels)
        assert store.verify().problems == []


def test_a_file_that_is_being_written_outlives_a_change_of_owner(store_path: Path, owner: Victim) -> None:
    with Store(store_path, cache_size=CACHE) as store:

        class Slow(io.RawIOBase):
            """Contents in the middle of which the owner is killed, and another one comes up."""

            pieces = 0

            def read(self, size: int = -1) -> bytes:
                self.pieces += 1
                if self.pieces == 2:
                    owner.kill()
                    owner.wait()
                    until(lambda: store.owner_pid is None)
                return b"piece" if self.pieces < 4 else b""

        with store.transaction():
            Mark(store, file=store.file(Slow()))
        assert store.verify().problems == []


# -- an owner that does not answer


def test_an_owner_that_is_stopped_is_told_of_and_waited_for(
    store_path: Path, owner: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "GREET_SECONDS", 0.2)
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.3)
    with Store(store_path, cache_size=CACHE) as store:
        mark = next(store.pool("marks").query("number"))
        store._tenure.attached.silence_seconds = 0.0  # type: ignore[union-attr]
        os.kill(owner.pid, signal.SIGSTOP)
        os.waitpid(owner.pid, os.WUNTRACED)
        with pytest.raises(StoreBusy, match=f"process {owner.pid}.*does not answer"):
            store.get(10**6)
        with pytest.raises(StoreBusy, match="does not answer"):
            mark.text = "once"
        os.kill(owner.pid, signal.SIGCONT)
        store._tenure.attached.silence_seconds = 20.0  # type: ignore[union-attr]
        mark.number = 77
        until(lambda: mark.number == 77)
        assert [commit.label for commit in store.history(limit=2)].count("set number of Mark 2") == 1


def test_a_store_whose_owner_is_stopped_cannot_be_opened(
    store_path: Path, owner: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "GREET_SECONDS", 0.2)
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.3)
    os.kill(owner.pid, signal.SIGSTOP)
    os.waitpid(owner.pid, os.WUNTRACED)
    with pytest.raises(StoreBusy, match=f"process {owner.pid}: it does not answer") as caught:
        Store(store_path)
    assert caught.value.pid == owner.pid
    os.kill(owner.pid, signal.SIGCONT)
    check_well(store_path, owner)


def test_a_socket_left_behind_is_no_obstacle(store_path: Path, owner: Victim) -> None:
    owner.kill()
    owner.wait()
    assert (store_path / "local" / SOCKET_NAME).is_socket()
    with Store(store_path) as store:
        assert store.owner_pid is None
        check_from_outside(store_path)
    assert not (store_path / "local" / SOCKET_NAME).exists()


def check_from_outside(path: Path) -> None:
    def look(say: Say) -> None:
        with Store(path) as store:
            say(str(store.owner_pid))

    assert Victim(look).wait() == [str(os.getpid())]


def test_where_there_can_be_no_socket_a_second_process_is_told_who_has_the_store(store_path: Path) -> None:
    with Store(store_path):
        pass
    (store_path / "local" / SOCKET_NAME).mkdir()

    def hold(say: Say) -> None:
        with Store(store_path) as store:
            Mark(store)
            say("open")
            threading.Event().wait()

    victim = Victim(hold)
    while victim.line() != "open":
        pass
    try:
        with pytest.raises(StoreBusy, match=f"is open in process {victim.pid}: close it there first") as caught:
            Store(store_path)
        assert caught.value.pid == victim.pid
    finally:
        victim.kill()
        victim.wait()


def test_an_owner_of_another_version_says_so(store_path: Path, owner: Victim) -> None:
    channel = Channel(connect(store_path))
    channel.send(HELLO, pack_hello(b"12345678").replace(b"\n\0\1", b"\n\0\2"))
    kind, body = channel.receive()
    assert kind == REFUSED
    assert b"version 1" in body
    with pytest.raises(EOFError):
        channel.receive()
    channel.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_users_process_is_cut_off_and_told_so(store_path: Path, owner: Victim) -> None:
    for directory in (store_path.parent, store_path, *(store_path / part for part in ("data", "files", "local"))):
        directory.chmod(0o777)
    (store_path / "local" / SOCKET_NAME).chmod(0o666)
    (store_path / "local" / LOCK_NAME).chmod(0o666)

    def meddle(say: Say) -> None:
        os.setuid(65534)
        with pytest.raises(StoreBusy, match="belongs to the user 0"):
            Store(store_path)
        connected = connect(store_path)
        with contextlib.suppress(BrokenPipeError):
            Channel(connected).send(HELLO, pack_hello(b"12345678"))
        assert ended(connected)
        say("done")

    assert Victim(meddle).wait() == ["done"]
    check_well(store_path, owner)


def test_a_process_that_may_not_write_to_the_store_is_told_so(store_path: Path) -> None:
    store_path.parent.chmod(0o777)

    def meddle(say: Say) -> None:
        if os.geteuid() == 0:
            os.setuid(65534)  # nothing is read-only to root
        owner = Victim(lambda say: own(store_path, say))
        assert owner.line() == "ready"
        (store_path / "local").chmod(0o500)
        with pytest.raises(StoreReadOnly):
            Store(store_path)
        (store_path / "local").chmod(0o700)
        check_well(store_path, owner)
        owner.kill()
        owner.wait()
        say("done")

    assert Victim(meddle).wait() == ["done"]


# -- a process that does not keep to the protocol


def test_garbage_is_cut_off(store_path: Path, owner: Victim) -> None:
    chance = random.Random(7)
    for size in (1, 4, 5, 17, 4_000):
        connected = connect(store_path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connected.sendall(chance.randbytes(size))
            connected.shutdown(socket.SHUT_WR)
        assert ended(connected)
    for length in (0, 65, MAX_FRAME, (1 << 32) - 1):
        connected = connect(store_path)
        connected.sendall(struct.pack(">IB", length, HELLO))
        connected.shutdown(socket.SHUT_WR)
        assert ended(connected)
    check_well(store_path, owner)


QUESTIONS = {
    "get": (GET, [b"items", b"\0" * 8]),
    "no list": (GET, []),
    "no table": (GET, [b"passwords", b"x"]),
    "table that is no text": (GET, [b"\xff\xfe", b"x"]),
    "absent key": (GET, [b"items", None]),
    "pairs without a limit": (PAIRS, [b"items", b"", b"\xff", b""]),
    "kind of an answer": (OK, []),
    "kind that there is not": (99, []),
    "arguments that are no pickle": (ASK, [b"commits", b"\x80\x05garbage"]),
    "arguments that name a function": (ASK, [b"commits", b"\x80\x05\x8c\x02os\x8c\x06system\x93."]),
    "name that is no text": (ASK, [b"\xff", b"\x80\x05}."]),
    "commit of nothing": (COMMIT, [None] * 12),
    "commit of too little": (COMMIT, [b""] * 3),
    "commit of wrong numbers": (COMMIT, [b"\xff" * 33, *[b""] * 11]),
}


@pytest.mark.parametrize("what", QUESTIONS)
def test_questions_of_the_wrong_form_change_nothing(store_path: Path, owner: Victim, what: str) -> None:
    kind, elements = QUESTIONS[what]
    body = struct.pack(">Q", 0) + pack_list(elements)
    for cut in (len(body), len(body) - 1, 11, 3):
        channel, connected = welcomed(store_path)
        channel.send(kind, body[:cut])
        connected.shutdown(socket.SHUT_WR)
        assert ended(connected)
    check_well(store_path, owner)
    with Store(store_path, cache_size=CACHE) as store:
        assert store.ask("commits") == store.head.number == 2


def test_no_answer_has_more_pairs_than_it_may_and_what_is_asked_for_comes_in_several(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (answering, "MAX_PAIRS", 5),
        (answering, "PAIRS_AT_ONCE", 2),
        (attached, "MAX_PAIRS", 5),
    ):
        monkeypatch.setattr(module, name, value)
    owner = Victim(lambda say: own(store_path, say))
    try:
        assert owner.line() == "ready"
        channel, connected = welcomed(store_path)
        for flags, most in ((0, 10), (KEYS_ONLY, 5)):
            asked = [b"items", b"", b"\xff" * 9, struct.pack(">IB", (1 << 32) - 1, flags)]
            channel.send(PAIRS, struct.pack(">Q", 0) + pack_list(asked))
            _, answer = channel.receive()
            assert len(unpack_list(answer, unpack_news(answer)[1])) == most
        connected.close()
        with Store(store_path, cache_size=CACHE) as store:
            database, stop = store._engine, b"\xff" * 9
            everything = database.pairs("items", b"", stop, 1_000)
            assert len(everything) > 10
            assert [key for key, _ in everything] == sorted({key for key, _ in everything})
            for limit in (1, 4, 5, 6, 10, len(everything), 1_000):
                for reverse in (False, True):
                    expected = (everything[::-1] if reverse else everything)[:limit]
                    assert database.pairs("items", b"", stop, limit, reverse) == expected
                    assert database.keys("items", b"", stop, limit, reverse) == [key for key, _ in expected]
    finally:
        os.kill(owner.pid, signal.SIGTERM)
        owner.wait()


def test_commits_cut_and_bent_at_any_byte_break_nothing(store_path: Path, owner: Victim) -> None:
    """What has the form of a commit may be applied; no other harm is done."""
    from atop.passing import write_set_to
    from atop.records import dumps, pack_u64
    from atop.writeset import INDEX, ITEMS, REFERENCES, WriteSet

    def write_set(number: int) -> WriteSet:
        commit_id = (5 << 39) + number
        return WriteSet(
            commit_id,
            number,
            "bent",
            checks={1: 2},
            exists=[3],
            unreferenced=[4],
            emptied=[],
            names=[("root/x", None)],
            operations={
                ITEMS: {pack_u64(9 << 39): pack_u64(commit_id) + b"x"},
                INDEX: {},
                REFERENCES: {},
            },
            counters={b"p" + pack_u64(1): 1},
            body=dumps((commit_id, number, "bent", [])),
        )

    chance = random.Random(3)
    channel, connected = welcomed(store_path)
    for number in range(300):
        elements = write_set_to(write_set(number), "flushed", 0)
        body = bytearray(struct.pack(">Q", 0) + pack_list(elements))
        body[chance.randrange(8, len(body))] = chance.randrange(256)
        end = chance.choice([len(body)] * 3 + [chance.randrange(len(body))])
        try:
            channel.send(COMMIT, bytes(body[:end]))
            kind, answer = channel.receive()
            unpack_list(answer, unpack_news(answer)[1])
            assert kind in (128, 129)
        except (EOFError, OSError):
            connected.close()
            channel, connected = welcomed(store_path)
    connected.close()
    check_well(store_path, owner)


def test_a_process_that_stops_reading_delays_nobody_and_costs_no_memory(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SEND_SECONDS", 0.5)
    victim = Victim(lambda say: own(store_path, say))
    assert victim.line() == "ready"
    try:
        question = struct.pack(">Q", 0) + pack_list([b"items", b"", b"\xff", struct.pack(">IB", 1_000, 0)])
        alone = threads(victim.pid)
        deaf = [welcomed(store_path) for _ in range(20)]
        for channel, connected in deaf:
            connected.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                for _ in range(200):
                    channel.send(PAIRS, question)
        memory = resident(victim.pid)
        with Store(store_path, cache_size=CACHE) as store:
            for number in range(200):
                Mark(store, number=100 + number, text="y" * 10_000)
        check_well(store_path, victim)
        assert resident(victim.pid) < memory + (40 << 20)
        until(lambda: threads(victim.pid) <= alone)  # all are cut off
        for _, connected in deaf:
            connected.settimeout(30)
            assert ended(connected)
    finally:
        victim.kill()
        victim.wait()


def resident(pid: int) -> int:
    """The memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def threads(pid: int) -> int:
    """The number of threads of a process."""
    return len(os.listdir(f"/proc/{pid}/task"))


def test_more_connections_than_there_may_be_are_refused(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MAX_CONNECTIONS", 10)
    victim = Victim(lambda say: own(store_path, say))
    assert victim.line() == "ready"
    try:
        many = [welcomed(store_path) for _ in range(10)]
        for _ in range(3):
            assert ended(connect(store_path))
        for _, connected in many:
            connected.close()
        until(lambda: answers(store_path))
        check_well(store_path, victim)
    finally:
        victim.kill()
        victim.wait()


def answers(path: Path) -> bool:
    with contextlib.suppress(EOFError, OSError):
        welcomed(path)[1].close()
        return True
    return False


def test_closing_the_owner_waits_for_what_is_being_answered(store_path: Path, owner: Victim) -> None:
    with Store(store_path, cache_size=CACHE) as store:
        stop = threading.Event()
        made: list[int] = []

        def write() -> None:
            while not stop.is_set():
                made.append(Mark(store, text="made").item_id)

        thread = threading.Thread(target=write)
        thread.start()
        until(lambda: len(made) > 10)
        os.kill(owner.pid, signal.SIGTERM)
        owner.wait()
        count = len(made)
        until(lambda: len(made) > count + 10)
        stop.set()
        thread.join()
        assert store.owner_pid is None
        found = [mark.item_id for mark in store.items() if isinstance(mark, Mark) and mark.text == "made"]
        assert found == made


def test_a_fork_of_the_owner_does_not_keep_the_others_from_taking_over(store_path: Path) -> None:
    def own_and_fork(say: Say) -> None:
        Store(store_path, cache_size=CACHE)
        if os.fork() == 0:
            say("child")
            threading.Event().wait(8)
            os._exit(0)
        threading.Event().wait()

    victim = Victim(own_and_fork)
    assert victim.line() == "child"
    with Store(store_path, cache_size=CACHE) as store:
        assert store.owner_pid == victim.pid
        victim.kill()
        os.waitpid(victim.pid, 0)
        Mark(store)
        assert store.owner_pid is None
    victim._reader.close()


def test_closing_while_threads_use_it_ends_each_with_store_closed(store_path: Path, owner: Victim) -> None:
    for _ in range(5):
        store = Store(store_path, cache_size=CACHE)
        started = threading.Barrier(5)

        def work(store: Store = store, started: threading.Barrier = started) -> None:
            mark = Mark(store)
            started.wait()
            while True:
                mark.number += 1
                list(store.history(limit=5))

        with ThreadPoolExecutor(4) as pool:
            working = [pool.submit(work) for _ in range(4)]
            started.wait()
            threading.Event().wait(0.02)
            store.close()
            assert [type(future.exception(20)) for future in working] == [StoreClosed] * 4
    check_well(store_path, owner)
