"""Discovery on real networks: each device is a process in a network namespace, joined by bridges and cables.

Run as a program this file is such a device: settings as JSON in its argument, commands on standard input, what it
hears and its status as JSON lines on standard output.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

import discovery
from discovery import Candidate, Change, Discovery, Timing

PATIENCE = 30.0  # seconds until a condition counts as never coming true; nothing here needs a third of it
QUICK = {"poll": 0.2, "sweep_grace": 3.0}

pytestmark = pytest.mark.slow


# --- the device process


def device_main(settings: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING)
    timing = Timing(**settings.pop("timing", {}))

    one_at_a_time = threading.Lock()

    def say(**what: Any) -> None:
        with one_at_a_time:
            print(json.dumps(what), flush=True)

    def on_candidate(change: Change, candidate: Candidate) -> None:
        say(change=change.value, candidate=dataclasses.asdict(candidate))

    with Discovery(on_candidate=on_candidate, timing=timing, **settings) as running:
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "status":
                say(status=dataclasses.asdict(running.status()))
            elif command == "refresh":
                running.refresh()
            elif command == "pairing":
                running.set_pairing(int(arguments[0]) if arguments else None)
            elif command == "prefer":
                running.prefer(arguments)
            elif command == "close":
                break
    say(closed=True)


# --- the test's side


def sh(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Process:
    """A device process, and all it has said."""

    def __init__(self, namespace: str, settings: dict[str, Any], log: Path) -> None:
        self.log = log
        self.said: list[dict[str, Any]] = []
        self._news = threading.Condition()
        root = Path(discovery.__file__).parent.parent
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, sys.executable, __file__, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": str(root)},
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.said.append(json.loads(line))
                self._news.notify_all()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait_said(self, condition: Callable[[dict[str, Any]], bool], since: int = 0) -> dict[str, Any]:
        """The first thing said, after so many, that fits."""

        def fitting() -> dict[str, Any] | None:
            return next((what for what in self.said[since:] if condition(what)), None)

        with self._news:
            self._news.wait_for(fitting, PATIENCE)
            found = fitting()
            assert found is not None, f"never said; but {self.said[since:]}; log {self.log.read_text()}"
            return found

    def status(self) -> dict[str, Any]:
        since = len(self.said)
        self.tell("status")
        return self.wait_said(lambda what: "status" in what, since)["status"]

    def wait_status(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            status = self.status()
            if condition(status):
                return status
            assert time.monotonic() < deadline, f"never so; but {status}; log {self.log.read_text()}"
            with self._news:  # it may say something of itself before it is asked again
                self._news.wait(0.05)

    def wait_found(self, device_id: str, since: int = 0) -> dict[str, Any]:
        """The candidate of a device, once it is found (or changed)."""
        said = self.wait_said(
            lambda what: what.get("change") in ("found", "changed") and what["candidate"]["device_id"] == device_id,
            since,
        )
        return said["candidate"]

    def wait_lost(self, device_id: str, since: int = 0) -> None:
        self.wait_said(lambda what: what.get("change") == "lost" and what["candidate"]["device_id"] == device_id, since)

    def wait_addresses(self, device_id: str, condition: Callable[[list[str]], bool]) -> list[str]:
        """The addresses of a device, once they are so."""
        said = self.wait_said(
            lambda what: (
                what.get("change") in ("found", "changed")
                and what["candidate"]["device_id"] == device_id
                and condition(what["candidate"]["addresses"])
            )
        )
        return said["candidate"]["addresses"]

    def close(self) -> None:
        self.tell("close")
        self.wait_said(lambda what: what.get("closed", False))
        self.end()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class World:
    """Namespaces that this test made: machines, and switches between them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._prefix = f"atop{os.getpid()}-"
        self._namespaces: list[str] = []
        self._processes: list[Process] = []
        self._others: list[subprocess.Popen[str]] = []

    def _namespace(self, name: str) -> str:
        namespace = self._prefix + name
        sh("ip", "netns", "add", namespace)
        self._namespaces.append(namespace)
        # Duplicate address detection takes two seconds for each address: only one test is about that.
        for which in ("default", "all"):
            self._write(namespace, f"/proc/sys/net/ipv6/conf/{which}/accept_dad", "0")
        sh("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _write(self, namespace: str, path: str, value: str) -> None:
        sh("ip", "netns", "exec", namespace, "sh", "-c", f"echo {value} > {path}")

    def switch(self, name: str) -> str:
        self._namespace(name)
        self.ip(name, "link add br0 type bridge mcast_snooping 0")
        self.ip(name, "link set br0 up")
        return name

    def machine(self, name: str) -> str:
        self._namespace(name)
        return name

    def ip(self, machine: str, command: str) -> str:
        return sh("ip", "-n", self._prefix + machine, *command.split())

    def check_duplicates(self, machine: str) -> None:
        for which in ("default", "all"):
            self._write(self._prefix + machine, f"/proc/sys/net/ipv6/conf/{which}/accept_dad", "1")

    def plug(self, machine: str, switch: str, interface: str, *addresses: str, ipv6: bool = True) -> None:
        """A cable from a new interface of a machine to a switch."""
        port = f"p{machine}{interface}"[:15]
        self.ip(machine, f"link add {interface} type veth peer name {port} netns {self._prefix}{switch}")
        self.ip(switch, f"link set {port} master br0 up")
        if not ipv6:
            self.ip(machine, f"link set {interface} addrgenmode none")
        self.ip(machine, f"link set {interface} up")
        for address in addresses:
            self.ip(machine, f"address add {address} dev {interface}" + (" nodad" if ":" in address else ""))

    def join(self, one: str, other: str) -> None:
        """A cable between two switches."""
        self.ip(one, f"link add up0 type veth peer name up0 netns {self._prefix}{other}")
        for switch in (one, other):
            self.ip(switch, "link set up0 master br0 up")

    def run(self, machine: str, device_id: str | None, **settings: Any) -> Process:
        settings = {
            "name": machine,
            "port": 4747,
            "device_id": device_id,
            "group_tag": "family",
            "timing": QUICK,
            **settings,
        }
        log = self._directory / f"{machine}-{len(self._processes)}.log"
        process = Process(self._prefix + machine, settings, log)
        self._processes.append(process)
        return process

    def hold_mdns_port(self, machine: str) -> subprocess.Popen[str]:
        """A program that has port 5353 for itself; it has it when this returns."""
        program = (
            "import socket, sys\n"
            "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n"
            "s.bind(('::', 5353))\n"
            "print('held', flush=True)\n"
            "sys.stdin.read()\n"
        )
        command = ["ip", "netns", "exec", self._prefix + machine, sys.executable, "-c", program]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._others.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return holder

    def send(self, machine: str, interface_address: str, packets: list[bytes]) -> None:
        """Multicast raw packets from a machine."""
        program = (
            "import socket, sys, time\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
            "s.bind((sys.argv[1], 5353))\n"
            "s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))\n"
            "for line in sys.stdin:\n"
            "    s.sendto(bytes.fromhex(line), ('224.0.0.251', 5353))\n"
            "    time.sleep(0.001)\n"
        )
        command = [
            "ip",
            "netns",
            "exec",
            self._prefix + machine,
            sys.executable,
            "-c",
            program,
            interface_address,
        ]
        subprocess.run(command, input="\n".join(packet.hex() for packet in packets), text=True, check=True)

    def answer(self, machine: str, interface_address: str, first: bytes, *, asked: bytes, answer: bytes) -> None:
        """Multicast a packet from a machine, and another once somebody asks for a name."""
        program = (
            "import socket, sys\n"
            "address, first, asked, answer = sys.argv[1], *map(bytes.fromhex, sys.argv[2:])\n"
            "group, own = socket.inet_aton('224.0.0.251'), socket.inet_aton(address)\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "s.bind(('', 5353))\n"
            "s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)\n"
            "s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)\n"
            "s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + own)\n"
            "s.settimeout(30)\n"
            "s.sendto(first, ('224.0.0.251', 5353))\n"
            "while not s.recv(9000)[12:].startswith(asked):\n"  # the first question follows the header
            "    pass\n"
            "s.sendto(answer, ('224.0.0.251', 5353))\n"
        )
        packets = [packet.hex() for packet in (first, asked, answer)]
        sh("ip", "netns", "exec", self._prefix + machine, sys.executable, "-c", program, interface_address, *packets)

    def end(self) -> None:
        for process in self._processes:
            process.end()
        for other in self._others:
            other.kill()
            other.communicate()
        for namespace in self._namespaces:
            sh("ip", "netns", "delete", namespace)


def why_no_namespaces() -> str:
    """Why this machine cannot make network namespaces; empty if it can."""
    if shutil.which("ip") is None:
        return "there is no `ip` command: apt-get install iproute2"
    name = f"atop{os.getpid()}-try"
    try:
        sh("ip", "netns", "add", name)
    except RuntimeError as error:
        return f"network namespaces cannot be made here: {error}"
    try:
        sh("ip", "-n", name, "link", "add", "br0", "type", "bridge")
    except RuntimeError as error:
        return f"bridges cannot be made here: {error}"
    finally:
        sh("ip", "netns", "delete", name)
    return ""


@pytest.fixture(scope="module")
def namespaces() -> None:
    reason = why_no_namespaces()
    if reason:
        print(reason)
        pytest.skip(reason)


@pytest.fixture
def world(namespaces: None, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        world.end()


@pytest.fixture
def lan(world: World) -> World:
    """Two machines, laptop 10.9.0.1 and desktop 10.9.0.2, on one switch."""
    world.switch("lan")
    for number, machine in enumerate(("laptop", "desktop"), start=1):
        world.machine(machine)
        world.plug(machine, "lan", "lan0", f"10.9.0.{number}/24", f"fd09::{number}/64")
    return world


def test_two_devices_find_each_other_over_ipv4_and_ipv6_and_a_close_is_heard(lan: World) -> None:
    laptop = lan.run("laptop", "aaa", port=5001)
    desktop = lan.run("desktop", "bbb", port=5002)

    addresses = laptop.wait_addresses("bbb", lambda addresses: any("%" in address for address in addresses))
    assert addresses[:2] == ["10.9.0.2", "fd09::2"]
    assert addresses[2].startswith("fe80::")
    assert laptop.wait_found("bbb")["port"] == 5002
    assert desktop.wait_found("aaa")["port"] == 5001

    desktop.close()
    laptop.wait_lost("bbb")


def test_a_network_without_ipv4_is_enough(world: World) -> None:
    world.switch("lan")
    for machine in ("laptop", "desktop"):
        world.machine(machine)
        world.plug(machine, "lan", "lan0")
    laptop = world.run("laptop", "aaa")
    desktop = world.run("desktop", "bbb")

    for device, other in ((laptop, "bbb"), (desktop, "aaa")):
        [address] = device.wait_found(other)["addresses"]
        # What was found can be connected to as it stands: it says through which interface.
        assert address.startswith("fe80::")
        assert "%" in address


def test_an_address_still_checked_for_duplicates_is_used_when_it_is_ready(world: World) -> None:
    world.switch("lan")
    for machine in ("laptop", "desktop"):
        world.check_duplicates(world.machine(machine))
    laptop = world.run("laptop", "aaa")
    desktop = world.run("desktop", "bbb")
    for machine in ("laptop", "desktop"):
        world.plug(machine, "lan", "lan0")

    laptop.wait_found("bbb")
    desktop.wait_found("aaa")
    assert "Address not available" not in laptop.log.read_text()


def test_two_groups_on_one_network_never_meet(lan: World) -> None:
    laptop = lan.run("laptop", "aaa", group_tag="family")
    neighbour = lan.run("desktop", "bbb", group_tag="neighbours")

    for device in (laptop, neighbour):
        assert device.wait_status(lambda status: status["other_groups"] == 1)["candidates"] == []
    assert not any("candidate" in said for said in laptop.said + neighbour.said)


def test_a_joiner_finds_who_invites_under_its_number_and_nobody_else(lan: World) -> None:
    laptop = lan.run("laptop", "aaa")
    joiner = lan.run("desktop", None, name="new", port=None, group_tag=None, seeking=7)
    joiner.wait_status(lambda status: status["other_groups"] == 1)

    laptop.tell("pairing 8")
    laptop.tell("pairing 7")
    assert joiner.wait_found("aaa")["pairing"] == 7

    laptop.tell("pairing")
    joiner.wait_lost("aaa")
    assert {said["candidate"]["pairing"] for said in joiner.said if "candidate" in said} == {7}
    assert joiner.status()["announced_as"] is None


def test_a_device_started_without_a_network_is_found_once_there_is_one(world: World) -> None:
    world.switch("lan")
    world.machine("laptop")
    world.machine("desktop")
    world.plug("desktop", "lan", "lan0", "10.9.0.2/24")
    laptop = world.run("laptop", "aaa")
    desktop = world.run("desktop", "bbb")
    status = laptop.wait_status(lambda status: bool(status["problems"]))
    assert status["problems"] == ["no network interface can be used"]

    world.plug("laptop", "lan", "lan0", "10.9.0.1/24")

    laptop.wait_found("bbb")
    desktop.wait_found("aaa")
    laptop.wait_status(lambda status: not status["problems"])


def test_after_the_cable_was_out_whoever_came_meanwhile_is_found_and_whoever_left_is_lost(lan: World) -> None:
    lan.machine("server")
    lan.plug("server", "lan", "lan0", "10.9.0.3/24")
    laptop = lan.run("laptop", "aaa")
    desktop = lan.run("desktop", "bbb")
    laptop.wait_found("bbb")

    lan.ip("laptop", "link set lan0 down")
    laptop.wait_status(lambda status: not status["interfaces"])
    desktop.close()  # its goodbye cannot be heard
    server = lan.run("server", "ccc")
    server.wait_status(lambda status: status["announced_as"] is not None)
    lan.ip("laptop", "link set lan0 up")

    laptop.wait_found("ccc")
    server.wait_found("aaa")
    laptop.wait_lost("bbb")


def test_an_interface_made_again_with_the_same_address_still_hears(world: World) -> None:
    world.switch("lan")
    for machine, address in (("laptop", "10.9.0.1/24"), ("desktop", "10.9.0.2/24")):
        world.machine(machine)
        world.plug(machine, "lan", "lan0", address, ipv6=False)
    # It looks at its interfaces only when told to: it sees the same name and address before and after.
    laptop = world.run("laptop", "aaa", timing={**QUICK, "poll": 3600.0})
    laptop.wait_status(lambda status: status["announced_as"] is not None)

    world.ip("laptop", "link delete lan0")
    world.plug("laptop", "lan", "lan0", "10.9.0.1/24", ipv6=False)
    laptop.tell("refresh")
    laptop.wait_status(lambda status: status["refreshes"] == 2)
    desktop = world.run("desktop", "bbb")

    laptop.wait_found("bbb")
    desktop.wait_found("aaa")


def test_a_new_address_reaches_the_others_and_the_old_one_goes(lan: World) -> None:
    laptop = lan.run("laptop", "aaa", timing={**QUICK, "reread": 3600.0})
    desktop = lan.run("desktop", "bbb")
    laptop.wait_addresses("bbb", lambda addresses: "10.9.0.2" in addresses)
    desktop.wait_found("aaa")
    # What was announced within the last second stays beside what is announced now (RFC 6762, 10.2).
    announced = time.monotonic()
    until(lambda: time.monotonic() > announced + 1.5)

    lan.ip("desktop", "address delete 10.9.0.2/24 dev lan0")
    lan.ip("desktop", "address add 10.9.0.77/24 dev lan0")

    laptop.wait_addresses("bbb", lambda addresses: "10.9.0.77" in addresses and "10.9.0.2" not in addresses)


def test_a_machine_on_two_networks_finds_devices_on_both(world: World) -> None:
    for switch in ("home", "lab"):
        world.switch(switch)
    for machine in ("laptop", "desktop", "server"):
        world.machine(machine)
    world.plug("laptop", "home", "lan0", "10.1.0.1/24")
    world.plug("laptop", "lab", "lan1", "10.2.0.1/24")
    world.plug("desktop", "home", "lan0", "10.1.0.2/24")
    world.plug("server", "lab", "lan0", "10.2.0.3/24")
    laptop = world.run("laptop", "aaa")
    desktop = world.run("desktop", "bbb")
    server = world.run("server", "ccc")

    assert laptop.wait_found("bbb")["addresses"][0] == "10.1.0.2"
    assert laptop.wait_found("ccc")["addresses"][0] == "10.2.0.3"
    # Each of the others tries first the address on the network that it shares with the laptop.
    assert desktop.wait_found("aaa")["addresses"][0] == "10.1.0.1"
    assert server.wait_found("aaa")["addresses"][0] == "10.2.0.1"


def test_addresses_of_container_bridges_are_neither_used_nor_announced(lan: World) -> None:
    lan.ip("laptop", "link add docker0 type bridge")
    lan.ip("laptop", "address add 172.17.0.1/16 dev docker0")
    lan.ip("laptop", "link set docker0 up")
    laptop = lan.run("laptop", "aaa")
    desktop = lan.run("desktop", "bbb")

    assert not any(address.startswith("172.") for address in desktop.wait_found("aaa")["addresses"])
    status = laptop.wait_status(lambda status: bool(status["interfaces"]))
    assert [interface["name"] for interface in status["interfaces"]] == ["lan0"]
    assert ["docker0", "container, virtual machine or tunnel"] in status["left_out"]


def test_a_labelled_address_is_one_of_its_interface(lan: World) -> None:
    lan.ip("laptop", "address add 10.9.0.55/24 dev lan0 label lan0:1")
    laptop = lan.run("laptop", "aaa")
    desktop = lan.run("desktop", "bbb")

    assert {"10.9.0.1", "10.9.0.55"} <= set(desktop.wait_found("aaa")["addresses"])
    status = laptop.wait_status(lambda status: bool(status["interfaces"]))
    assert [interface["name"] for interface in status["interfaces"]] == ["lan0"]
    assert laptop.log.read_text() == ""


def test_when_two_networks_become_one_the_device_with_the_smaller_id_keeps_its_name(world: World) -> None:
    world.switch("home")
    world.switch("lab")
    for machine, switch, address in (("one", "home", "10.9.0.1/24"), ("other", "lab", "10.9.0.2/24")):
        world.machine(machine)
        world.plug(machine, switch, "lan0", address)
    one = world.run("one", "aaa", name="desk")
    other = world.run("other", "bbb", name="Desk")  # the same name to DNS
    one.wait_status(lambda status: status["announced_as"] == "desk")
    other.wait_status(lambda status: status["announced_as"] == "Desk")

    world.join("home", "lab")
    for device in (one, other):
        device.tell("refresh")

    other.wait_status(lambda status: status["announced_as"] == "Desk (bbb)")
    assert one.wait_found("bbb")["addresses"][0] == "10.9.0.2"
    assert other.wait_found("aaa")["addresses"][0] == "10.9.0.1"
    assert one.status()["announced_as"] == "desk"


def test_a_name_in_use_is_left_to_the_device_that_has_it(lan: World) -> None:
    laptop = lan.run("laptop", "bbb", name="desk")
    laptop.wait_status(lambda status: status["announced_as"] == "desk")
    desktop = lan.run("desktop", "aaa", name="desk")

    assert laptop.wait_found("aaa")["name"] == "desk (aaa)"
    assert desktop.wait_found("bbb")["name"] == "desk"


def test_a_flapping_interface_is_held_and_causes_no_storm(lan: World) -> None:
    timing = {**QUICK, "poll": 0.05, "change_burst": 4, "change_refill": 3600.0}
    laptop = lan.run("laptop", "aaa", timing=timing)
    desktop = lan.run("desktop", "bbb")
    desktop.wait_found("aaa")
    before = laptop.status()["refreshes"]

    def flapping(status: dict[str, Any]) -> bool:
        held_up = any(interface["flapping"] for interface in status["interfaces"])
        return held_up or ["lan0", "changes too often"] in status["left_out"]

    for _ in range(5):
        for state in ("down", "up"):
            lan.ip("laptop", f"link set lan0 {state}")
            laptop.wait_status(
                lambda status, down=state == "down": flapping(status) or bool(status["interfaces"]) != down
            )
    assert laptop.status()["refreshes"] - before <= 4


def test_a_network_that_comes_and_goes_is_logged_once_each_time(lan: World) -> None:
    laptop = lan.run("laptop", "aaa", timing={**QUICK, "refresh_refill": 0.01, "change_burst": 100})
    laptop.wait_status(lambda status: status["announced_as"] is not None)

    for _ in range(3):
        lan.ip("laptop", "link set lan0 down")
        laptop.wait_status(lambda status: not status["interfaces"])
        for pairing in range(5):  # these would be sent
            before = laptop.status()["refreshes"]
            laptop.tell(f"pairing {pairing}")
            laptop.tell("refresh")
            laptop.wait_status(lambda status, before=before: status["refreshes"] > before)
        lan.ip("laptop", "link set lan0 up")
        laptop.wait_status(lambda status: bool(status["interfaces"]))

    log = laptop.log.read_text()
    assert log.count("no network interface can be used") == 3
    assert "Traceback" not in log
    # At most one line beside it for each socket that was sending when its interface went.
    assert len(log.splitlines()) <= 3 * 3


def test_a_port_that_another_program_holds_is_taken_up_once_it_is_free(lan: World) -> None:
    holder = lan.hold_mdns_port("laptop")
    laptop = lan.run("laptop", "aaa", timing={**QUICK, "reopen_first": 0.1, "reopen_last": 0.2})
    desktop = lan.run("desktop", "bbb")
    laptop.wait_status(lambda status: any("cannot be used" in problem for problem in status["problems"]))

    holder.kill()
    holder.wait()

    laptop.wait_found("bbb")
    desktop.wait_found("aaa")
    laptop.wait_status(lambda status: not status["problems"])
    assert laptop.log.read_text().count("cannot be used") == 1


def test_a_name_in_local_given_as_fixed_address_is_resolved_by_multicast(lan: World) -> None:
    desktop = lan.run("desktop", "bbb", port=5002)
    desktop.wait_status(lambda status: status["announced_as"] is not None)
    laptop = lan.run("laptop", "aaa", group_tag="others", fixed=["atop-bbb.local:5002", "10.9.0.2:5002"])

    said = laptop.wait_said(lambda what: what.get("candidate", {}).get("name") == "atop-bbb.local:5002")
    assert "10.9.0.2" in said["candidate"]["addresses"]
    assert said["candidate"]["fixed"]


def text(*strings: bytes) -> bytes:
    return b"".join(bytes([len(string)]) + string for string in strings)


def message(*records: bytes) -> bytes:
    """A DNS response of these records, made byte by byte as a forger would."""
    return bytes(2) + bytes.fromhex("84000000") + len(records).to_bytes(2) + bytes(4) + b"".join(records)


def records_of(name: str, device_id: str, addresses: list[str]) -> list[bytes]:
    """What a device announces: PTR, SRV, TXT, and an A for each address."""

    def record(owner: bytes, kind: int, data: bytes) -> bytes:
        return owner + kind.to_bytes(2) + (1).to_bytes(2) + (4500).to_bytes(4) + len(data).to_bytes(2) + data

    service = text(b"_atop", b"_tcp", b"local") + b"\0"
    instance = text(name.encode()) + service
    host = text(f"atop-{device_id}".encode(), b"local") + b"\0"
    return [
        record(service, 12, instance),
        record(instance, 33, bytes(4) + (4747).to_bytes(2) + host),
        record(instance, 16, text(b"version=1", f"device={device_id}".encode(), b"group=family")),
        *(record(host, 1, socket.inet_aton(address)) for address in addresses),
    ]


def announcement(name: str, device_id: str) -> bytes:
    return message(*records_of(name, device_id, ["10.9.0.2"]))


def test_an_announcement_that_is_incomplete_is_asked_about(lan: World) -> None:
    laptop = lan.run("laptop", "aaa")
    laptop.wait_status(lambda status: status["announced_as"] is not None)
    pointer, *rest = records_of("ghost", "ggg", ["10.9.0.2"])

    lan.answer("desktop", "10.9.0.2", message(pointer), asked=text(b"ghost"), answer=message(*rest))

    assert laptop.wait_found("ggg")["addresses"] == ["10.9.0.2"]


def test_a_host_with_thousands_of_addresses_is_not_read(lan: World) -> None:
    laptop = lan.run("laptop", "aaa")
    laptop.wait_status(lambda status: status["announced_as"] is not None)
    addresses = [f"10.9.{high}.{low}" for high in range(1, 21) for low in range(1, 101)]
    records = records_of("huge", "hhh", addresses)

    packets = [message(*records[:3], *records[begin : begin + 100]) for begin in range(3, len(records), 100)]
    lan.send("desktop", "10.9.0.2", [*packets, announcement("sound", "sss")])

    laptop.wait_found("sss")
    status = laptop.wait_status(lambda status: status["unusable"] == 1)
    assert [candidate["device_id"] for candidate in status["candidates"]] == ["sss"]


def test_thousands_of_forged_devices_are_capped_and_do_not_hide_a_known_one(lan: World) -> None:
    lan.machine("server")
    lan.plug("server", "lan", "lan0", "10.9.0.3/24")
    laptop = lan.run("laptop", "aaa", timing={**QUICK, "flood_refill": 2.0})
    laptop.tell("prefer ccc")
    laptop.wait_status(lambda status: status["announced_as"] is not None)

    forged = [announcement(f"forged {number}", f"f{number}") for number in range(3000)]
    lan.send("desktop", "10.9.0.2", forged)
    status = laptop.wait_status(lambda status: len(status["candidates"]) == 128)
    assert status["crowded_out"] > 0
    server = lan.run("server", "ccc")

    laptop.wait_found("ccc")
    server.wait_found("aaa")
    assert len(laptop.status()["candidates"]) <= 128


def test_malformed_announcements_are_counted_and_harm_nothing(lan: World) -> None:
    laptop = lan.run("laptop", "aaa")
    laptop.wait_status(lambda status: status["announced_as"] is not None)
    sound = announcement("sound", "sss")
    bad_id = announcement("bad id", "not/a/token")
    cut = [sound[:length] for length in range(len(sound))]

    lan.send("desktop", "10.9.0.2", [*cut, b"\xff" * 500, bad_id, sound])

    laptop.wait_found("sss")
    assert laptop.wait_status(lambda status: status["unusable"] >= 1)["problems"] == []
    assert [candidate["device_id"] for candidate in laptop.status()["candidates"]] == ["sss"]


if __name__ == "__main__":
    device_main(json.loads(sys.argv[1]))
