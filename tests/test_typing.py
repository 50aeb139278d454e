"""Type checkers know the constructor that the annotations of a class describe (PEP 681): shown with mypy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import atop

# What a program may look like. A line that mypy must complain about ends in `# error: ` and a part of what it says.
PROGRAM = """
from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from atop import File, Index, Item, Page, Pool, Store, ref, transacted, upgrade


class Company(Item):
    name: str


class Contact(Item, version=2, type_name="pim.Contact"):
    name: str
    email: str = ""
    born: datetime.date | None = None
    employer: Company | None = None
    boss: Contact | None = ref(on_delete="cascade")
    tags: list[str] = []
    photo: File | None = None

    @upgrade(1)
    @staticmethod
    def split(state: dict[str, Any]) -> dict[str, Any]:
        return state

    @transacted
    def rename(self, name: str) -> int:
        self.name = name
        return 1

    def colleagues(self) -> Iterator[Item]:
        return self.employer.referrers("employer") if self.employer else iter(())


class Friend(Contact):
    since: int = 2000


class Classic(Item):
    def __init__(self, store: Store, name: str) -> None:
        super().__init__(store, name=name)


store = Store("~/pim")
ada = Contact(store, name="Ada", tags=["a"])
Contact(store, name="Bob", boss=ada, employer=Company(store, name="C"))
Friend(store, name="Cleo", since=1999).rename("Cleopatra")
Classic(store, "Dora")
Item(store, anything=1, at_all="x")

Contact(store)  # error: Missing named argument "name"
Contact(name="Ada")  # error: Missing positional argument "store"
Contact(store, nmae="Ada")  # error: Unexpected keyword argument "nmae"
Contact(store, "Ada")  # error: Too many positional arguments
Contact(store, name=1)  # error: "name" to "Contact" has incompatible type "int"
Contact(store, name="Ada", _id=1)  # error: Unexpected keyword argument "_id"
Contact("~/pim", name="Ada")  # error: incompatible type "str"; expected "Store"
Friend(store, name="Ada", since="x")  # error: "since" to "Friend" has incompatible type "str"
Classic(store, nmae="Dora")  # error: Unexpected keyword argument "nmae"
ada.email = 5  # error: expression has type "int", variable has type "str"
ada.emial  # error: has no attribute "emial"
ada.rename(1)  # error: "rename" of "Contact" has incompatible type "int"

name: str = ada.name
item_id: int = ada.item_id
the_store: Store = ada.store
found: Contact = store.get(1, Contact)
pool: Pool = store.pool("people", indexes=["name", ("city", "name"), Index("words", "notes", words=True)])
page: Page = pool.page("name", after=None)
for person in pool.query("name", start="Bob", limit=50):
    print(person.name)
with store.transaction("label"):
    ada.delete()
number: int = store.transact(ada.rename, "x")
wrong: str = store.transact(ada.rename, "x")  # error: expression has type "int", variable has type "str"
"""


@pytest.mark.slow
def test_mypy_knows_the_constructor_and_the_attributes_of_an_item_class(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    root = Path(atop.__file__).resolve().parent.parent
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--hide-error-context"]
    command += ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache"), str(program)]
    output = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False).stdout
    found = {int(n): text for n, text in re.findall(r"program\.py:(\d+): error: (.*)", output)}
    expected = {
        number: line.partition("# error: ")[2]
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if "# error: " in line
    }
    assert found.keys() == expected.keys(), output
    for number, part in expected.items():
        assert part in found[number], found[number]


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(atop.__file__).parent / "py.typed").exists()
