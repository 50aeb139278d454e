"""The data browser over HTTP on loopback, with ten thousand contacts and with a million.

`measure_browser(count)` makes the two stores, serves each in a process of its own, and yields figures: a page of 50
rows in the order of any index, either way, at any position (the time at the server, the two asked in turns); a hundred
requests at once; memory before and after everything has been scrolled through.

`browser.py serve STORE` is that process: it prints the address, and at the end of its input its memory.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

from large import memory
from subjects_core import Atop
from workload import BATCH, INDEXES, contacts

from atop import Store

SMALL = 10_000  # items of the store whose pages the large one's are compared with
PAGES = 400  # pages timed for each store
AT_ONCE = 100
ROWS_AT_ONCE = 500  # of a page of those that scroll through everything
IDLE = 3.0  # seconds after which a connection is made anew
COLUMNS = ("name", "email", "city", "phone", "born", "note")


def resident() -> float:
    """The memory that this process has now, in MiB."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except OSError:
        return memory()


class _Timed:
    """An ASGI application that says in a header how long an answer took, in microseconds."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        begin = time.perf_counter()

        async def timed(message: Any) -> None:
            if message["type"] == "http.response.start":
                spent = int((time.perf_counter() - begin) * 1e6)
                message["headers"] = [*message["headers"], (b"x-microseconds", str(spent).encode())]
            await send(message)

        await self._inner(scope, receive, timed)


def serve(path: str) -> None:
    """Serve a store until the end of the input; each line of it is answered with the memory."""
    import uvicorn

    from atop.browser import app
    from atop.browser.serving import listen

    with Store(path) as store:
        browser = app(store)
        listener = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(_Timed(browser), log_config=None, access_log=False))
        print(json.dumps({"port": listener.getsockname()[1], "token": browser.token}), flush=True)
        print(json.dumps({"pool": store.pool("people").item_id}), flush=True)

        async def run() -> None:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            while await asyncio.to_thread(sys.stdin.readline):
                print(json.dumps({"resident": resident(), "peak": memory()}), flush=True)
            server.should_exit = True
            await serving

        asyncio.run(run())


class Served:
    """A store served by another process, and a connection to it."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._input: Any = self._process.stdin
        self._output: Any = self._process.stdout
        where = self._line()
        self._port, self._headers = where["port"], {"authorization": f"Bearer {where['token']}"}
        self._path = f"/api/pools/{self._line()['pool']}/rows"
        self._asked = time.monotonic()
        self._connection = http.client.HTTPConnection("127.0.0.1", self._port)

    def _line(self) -> Any:
        return json.loads(self._output.readline())

    def memory(self) -> float:
        self._input.write("\n")
        self._input.flush()
        return self._line()["resident"]

    def rows(self, connection: http.client.HTTPConnection | None = None, **query: Any) -> tuple[dict[str, Any], float]:
        """A page, and the microseconds that the server took for it."""
        if connection is None and time.monotonic() - self._asked > IDLE:  # the server will have hung up
            self._connection.close()
        self._asked = time.monotonic()
        connection = connection or self._connection
        fields = [*query.items(), *(("columns", name) for name in COLUMNS)]
        connection.request("GET", f"{self._path}?{urllib.parse.urlencode(fields)}", headers=self._headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{query}: {answer.status} {body[:300]!r}")
        return json.loads(body), float(answer.headers["x-microseconds"])

    def alone(self, **query: Any) -> float:
        """A page through a connection of its own; the seconds that it took, waiting included."""
        begin = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        self.rows(connection, **query)
        connection.close()
        return time.perf_counter() - begin

    def close(self) -> None:
        self._input.close()
        self._process.wait()


def places(count: int, seed: int = 3) -> Iterator[dict[str, Any]]:
    """Pages at random positions, in the order of every index and of the ids, either way."""
    rng = random.Random(seed)
    for _ in range(count):
        query: dict[str, Any] = {"size": 50, "at": rng.random()}
        index = rng.choice((*INDEXES, ""))
        if index:
            query["index"] = index
        if rng.random() < 0.5:
            query["reverse"] = 1
        yield query


def build(path: str, count: int) -> None:
    """A store of contacts."""
    store = Atop()
    store.open(path)
    people = contacts(count)
    while batch := list(islice(people, BATCH)):
        store.create(batch)
    store.close()


def scroll_through(served: Served) -> int:
    """Read everything in the order of names, page by page; the number of rows."""
    found, _ = served.rows(index="name", size=ROWS_AT_ONCE)
    seen = len(found["rows"])
    while found["after"]:
        found, _ = served.rows(index="name", size=ROWS_AT_ONCE, after=found["rows"][-1]["key"])
        seen += len(found["rows"])
    return seen


def measure_browser(count: int) -> Iterator[tuple[str, str, float]]:
    """(what, unit, figure) for each row."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for size in (SMALL, count):
            print(f"data browser: a store of {size:,} contacts ...", file=sys.stderr)
            build(f"{folder}/{size}", size)
        small, large = Served(f"{folder}/{SMALL}"), Served(f"{folder}/{count}")
        try:
            taken: dict[Served, list[float]] = {small: [], large: []}
            for query in places(20):
                for served in taken:
                    served.rows(**query)
            for query in places(PAGES, seed=4):
                for served, times in taken.items():
                    times.append(served.rows(**query)[1] / 1000)
            medians = [statistics.median(times) for times in taken.values()]
            yield f"page of 50 rows at the server, {SMALL:,} items", "ms", medians[0]
            yield f"page of 50 rows at the server, {count:,} items", "ms", medians[1]
            yield "the second as a multiple of the first", "x", medians[1] / medians[0]
            yield "the slowest of 20, " + f"{count:,} items", "ms", statistics.quantiles(taken[large], n=20)[-1]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                begin = time.perf_counter()
                waits = list(pool.map(lambda query: large.alone(**query), places(AT_ONCE, seed=5)))
                seconds = time.perf_counter() - begin
            yield f"{AT_ONCE} requests at once, all answered", "s", seconds
            yield "the slowest of them", "s", max(waits)
            scroll_through(small)
            before = large.memory()
            seen = scroll_through(large)
            if seen != count:
                raise SystemExit(f"scrolling found {seen:,} of {count:,} rows")
            first = large.memory()
            scroll_through(large)
            yield "memory of the server before all is scrolled through", "MiB", before
            yield "after once", "MiB", first
            yield "after twice", "MiB", large.memory()
        finally:
            small.close()
            large.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        for what, unit, figure in measure_browser(int(sys.argv[1])):
            print(f"{what:56} {figure:10.2f} {unit}")
