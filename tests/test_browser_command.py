"""`atop browse`, as a person starts and ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from atop import Item, Store


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "HOME": str(tmp_path), "ATOP_STORE": str(tmp_path / "store"), "BROWSER": "false"}


@pytest.fixture
def browsing(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, under way, and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "atop.cli", "--json", "browse", "--no-open", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    yield process, json.loads(line)["url"]
    if process.poll() is None:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_it_serves_until_it_is_ended_and_closes_the_store(
    browsing: tuple[subprocess.Popen[str], str], environment: dict[str, str], end: signal.Signals
) -> None:
    process, url = browsing
    with httpx.Client() as client:
        assert client.get(url).status_code == 200
        base = url.partition("/?")[0]
        made = client.post(f"{base}/api/pools", json={"name": "books"}, headers={"origin": base})
        assert made.status_code == 200
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    with Store(environment["ATOP_STORE"]) as store:
        assert [pool.name for pool in store.pools()] == ["books"]


def test_it_shows_a_store_that_another_program_has_open(
    environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    with Store(environment["ATOP_STORE"]) as store:
        pool = store.pool("books", indexes=["title"])
        for n in range(5):
            pool.add(Item(store, title=f"title {n}"))
        _, url = request.getfixturevalue("browsing")
        base = url.partition("/?")[0]
        with httpx.Client(base_url=base, headers={"origin": base}, timeout=60) as client:
            client.get(url)
            path = f"/api/pools/{pool.item_id}/rows"
            query: dict[str, Any] = {"index": "title", "columns": "title", "at": "0.5", "count": "1"}
            found = client.get(path, params=query).json()
            assert found["total"] == 5
            row = client.get(path, params={"index": "title", "columns": "title"}).json()["rows"][0]
            value = {"title": {"kind": "str", "text": "changed"}}
            assert client.patch(f"/api/items/{row['id']}", json={"version": row["version"], "set": value}).is_success
            assert store.get(int(row["id"])).title == "changed"
            with client.stream("GET", "/api/events") as events:
                lines = events.iter_lines()
                assert "event: hello" in (next(lines), next(lines))
                store.get(int(row["id"])).title = "changed again"
                assert next(line for line in lines if line.startswith("event: commit"))


def test_another_device_is_invited_from_its_page(
    browsing: tuple[subprocess.Popen[str], str], environment: dict[str, str], tmp_path: Path
) -> None:
    process, url = browsing
    base = url.partition("/?")[0]
    desktop = {**environment, "ATOP_STORE": str(tmp_path / "desktop")}
    with httpx.Client(base_url=base, headers={"origin": base}, timeout=60) as client:
        client.get(url)
        assert "Invite a device" in client.get("/devices").text
        assert client.post("/api/pools", json={"name": "books"}).is_success
        code = client.post("/api/devices/invite", json={}).json()["code"]
        port = client.get("/api/devices").json()["port"]
        join = [
            sys.executable,
            "-m",
            "atop.cli",
            "join",
            code,
            "--address",
            f"127.0.0.1:{port}",
            "--port",
            "0",
            "--yes",
        ]
        with subprocess.Popen(join, env=desktop, stdout=subprocess.PIPE, text=True) as joining:
            while (invitation := client.get("/api/devices").json()["invitation"])["state"] == "open":
                assert joining.poll() is None
            answer = {"number": invitation["number"], "equal": True}
            assert client.post("/api/devices/answer", json=answer).is_success
            joining.communicate(timeout=60)
            assert joining.returncode == 0
    with Store(desktop["ATOP_STORE"]) as store:
        assert "books" in [pool.name for pool in store.pools()]
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")


@pytest.mark.parametrize("missing", ["zeroconf", "cryptography", "msgspec", "spake2"])
def test_without_the_extra_for_devices_it_serves_the_store(environment: dict[str, str], missing: str) -> None:
    program = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "import click\n"
        "from atop.cli.browse import _opened\n"
        "from atop.cli.session import Session\n"
        "with _opened(Session()) as opened:\n"
        "    print(type(opened).__name__)\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (outcome.stdout, outcome.stderr) == ("Store\n", "")


def test_a_port_that_is_taken_is_named(environment: dict[str, str], browsing: tuple[Any, str]) -> None:
    port = browsing[1].rpartition(":")[2].partition("/")[0]
    outcome = subprocess.run(
        [sys.executable, "-m", "atop.cli", "--store", f"{environment['HOME']}/other", "browse", "--port", port],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 1
    assert f"port {port}" in outcome.stderr
    assert "--port" in outcome.stderr


def test_it_opens_the_systems_browser_at_the_address(environment: dict[str, str], tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    os.mkfifo(opened)
    program = tmp_path / "show"
    program.write_text(f'#!/bin/sh\nexec printf %s "$1" >{opened}\n')
    program.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "atop.cli", "browse", "--port", "0"],
        env={**environment, "BROWSER": f"{program} %s"},
        stdout=subprocess.PIPE,
        text=True,
    )
    url = opened.read_text()  # waits until somebody writes
    assert httpx.get(url).status_code == 200
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert f"Atop is at {url}" in out
    assert process.returncode == 0
