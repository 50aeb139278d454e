"""What the table asks the server for, and what is changed through it."""

from __future__ import annotations

import datetime
import json
import threading
from typing import Any

import pytest
from browsing import Served

from atop import Item, Pool
from atop.browser.jobs import MAX_RUNNING, Jobs
from atop.browser.views import Refusal

COUNT = 120


@pytest.fixture
def books(served: Served) -> Pool:
    """A pool of books, numbered backwards by their titles."""
    pool = served.store.pool("books", indexes=["title", "year"])
    with served.store.transaction():
        for n in range(COUNT):
            title = f"title {COUNT - n:03}"
            pool.add(
                Item(served.store, title=title, year=1900 + n, read=datetime.date(2020, 1, 1 + n % 28), shelf=None)
            )
    return pool


def rows(served: Served, pool: Pool, **query: Any) -> dict[str, Any]:
    response = served.client.get(f"/api/pools/{pool.item_id}/rows", params={"columns": ["title", "year"], **query})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def titles(found: dict[str, Any]) -> list[int]:
    return [int(row["cells"][0].split()[1]) for row in found["rows"]]


@pytest.mark.parametrize("reverse", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("index", ["title", "year", ""], ids=["title", "year", "by id"])
def test_the_whole_pool_is_walked_down_and_up(served: Served, books: Pool, index: str, reverse: bool) -> None:
    order = {"index": index, "reverse": "1" if reverse else "", "size": 50}
    wanted = list(range(1, COUNT + 1)) if (index == "title") != reverse else list(range(COUNT, 0, -1))
    found = rows(served, books, **order, count=1)
    assert (found["before"], found["total"], found["exact"], found["position"]) == (False, COUNT, True, 0)
    seen = titles(found)
    while found["after"]:
        found = rows(served, books, **order, after=found["rows"][-1]["key"])
        seen += titles(found)
    assert seen == wanted
    back = titles(found)
    while found["before"]:
        found = rows(served, books, **order, before=found["rows"][0]["key"])
        back = titles(found) + back
    assert back == wanted


@pytest.mark.parametrize("reverse", ["", "1"], ids=["ascending", "descending"])
def test_a_page_begins_at_a_row_a_key_or_a_position(served: Served, books: Pool, reverse: str) -> None:
    order = {"index": "title", "reverse": reverse, "size": 10}
    third = rows(served, books, **order)["rows"][2]
    assert rows(served, books, **order, near=third["key"])["rows"][0] == third
    assert titles(rows(served, books, **order, start="title 05"))[0] == (59 if reverse else 50)
    middle = rows(served, books, **order, at=0.5)
    assert 40 < titles(middle)[0] < 80
    assert 0.3 < middle["position"] < 0.7
    assert titles(rows(served, books, **order, at=1))[-1] == (1 if reverse else COUNT)
    assert titles(rows(served, books, **order, at=0))[0] == (COUNT if reverse else 1)
    assert rows(served, books, **order, start="zzz")["rows"]  # past the end: the last page


def test_a_part_of_an_index(served: Served, books: Pool) -> None:
    found = rows(served, books, index="title", prefix="title 11", count=1)
    assert titles(found) == list(range(110, 120))
    assert (found["total"], found["exact"], found["before"], found["after"]) == (10, True, False, False)
    assert titles(rows(served, books, index="year", first="1910", last="1912")) == [110, 109, 108]
    assert titles(rows(served, books, index="title", first="title 118", last="title 119")) == [118, 119]
    assert titles(rows(served, books, index="title", reverse="1", prefix="title 00")) == list(range(9, 0, -1))


def test_what_cannot_be_read_is_said_in_words(served: Served, books: Pool) -> None:
    path = f"/api/pools/{books.item_id}/rows"
    for query, status in (
        ({"index": "year", "first": "many"}, 422),
        ({"index": "nothing"}, 409),
        ({"at": "2"}, 400),
        ({"at": "nan"}, 400),
        ({"after": "%%%"}, 400),
        ({"size": "0"}, 400),
        ({"size": "1e9"}, 400),
        ({"at": "0.5", "start": "x"}, 400),
    ):
        response = served.client.get(path, params=query)
        assert (response.status_code, bool(response.json()["message"])) == (status, True), query
    assert served.client.get("/api/pools/999999/rows").status_code == 404
    assert served.client.get(f"/api/pools/{next(iter(books)).item_id}/rows").status_code == 404


def patch(served: Served, item: Item, version: str, **values: Any) -> Any:
    return served.client.patch(f"/api/items/{item.item_id}", json={"version": version, "set": values})


def test_an_edit_is_written_and_undone(served: Served, books: Pool) -> None:
    book = next(iter(books))
    answer = patch(served, book, str(book.version), year={"kind": "int", "text": "1 815"}).json()
    assert book.year == 1815
    assert answer["item"]["attributes"]["year"] == {"k": "int", "t": "1815"}
    assert served.client.post("/api/undo", json={"commit": answer["commit"]}).status_code == 200
    assert book.year == 1900


def test_an_edit_of_what_was_changed_meanwhile_is_a_conflict_with_the_new_values(served: Served, books: Pool) -> None:
    book = next(iter(books))
    version = str(book.version)
    book.title = "theirs"
    answer = patch(served, book, version, title={"kind": "str", "text": "mine"})
    assert answer.status_code == 409
    assert answer.json()["changed"] == ["title"]
    assert answer.json()["item"]["attributes"]["title"] == "theirs"
    assert book.title == "theirs"
    # Another attribute of the same item was left alone, so there is nothing to overwrite.
    assert patch(served, book, version, year={"kind": "int", "text": "7"}).status_code == 200
    assert (book.title, book.year) == ("theirs", 7)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"kind": "int", "text": "seven"}, 422),
        ({"kind": "date", "text": "2023-02-30"}, 422),
        ({"kind": "ref", "text": "999999"}, 422),
        ({"kind": "nonsense", "text": ""}, 422),
        ({"kind": "json", "text": '{"$datetime": 7}'}, 422),
        ({"kind": "set", "items": [{"kind": "list", "items": []}]}, 422),
        ({"kind": "int", "text": "9" * 30_000}, 422),
        ("text", 422),
    ],
    ids=str,
)
def test_a_value_that_is_none_is_refused(served: Served, books: Pool, value: Any, status: int) -> None:
    book = next(iter(books))
    answer = patch(served, book, str(book.version), year=value)
    assert (answer.status_code, answer.json()["name"]) == (status, "year")
    assert book.year == 1900


@pytest.mark.parametrize("name", ["_private", "delete", "", "\ud800", "item_id"], ids=ascii)
def test_names_that_no_attribute_can_have_are_refused(served: Served, books: Pool, name: str) -> None:
    book = next(iter(books))
    body = json.dumps({"version": str(book.version), "set": {name: {"kind": "int", "text": "1"}}})
    headers = {"content-type": "application/json"}
    answer = served.client.patch(f"/api/items/{book.item_id}", content=body, headers=headers)
    assert answer.status_code in (400, 422)


def test_many_are_changed_deleted_and_taken_out_all_or_nothing(served: Served, books: Pool) -> None:
    chosen = list(books)[:5]
    ids = [str(item.item_id) for item in chosen]
    value = {"shelf": {"kind": "str", "text": "A"}}
    assert served.client.post("/api/items/change", json={"ids": [*ids, "999999"], "set": value}).status_code == 404
    assert chosen[0].shelf is None
    done = served.client.post("/api/items/change", json={"ids": ids, "set": value}).json()
    assert {item.shelf for item in chosen} == {"A"}
    assert served.store.commit(int(done["commit"])).label == "change shelf of 5 items"
    assert served.client.post(f"/api/pools/{books.item_id}/remove", json={"ids": ids}).json()["count"] == 5
    assert len(books) == COUNT - 5
    deleted = served.client.post("/api/items/delete", json={"ids": ids}).json()
    assert served.client.get(f"/api/items/{ids[0]}").status_code == 404
    served.client.post("/api/undo", json={"commit": deleted["commit"]})
    assert served.client.get(f"/api/items/{ids[0]}").json()["item"]["attributes"]["shelf"] == "A"


def test_a_new_item_is_in_the_pool(served: Served, books: Pool) -> None:
    made = served.client.post(
        f"/api/pools/{books.item_id}/items",
        json={"type": "atop.Item", "set": {"title": {"kind": "str", "text": "<script>"}}},
    ).json()
    assert served.store.get(int(made["item"]["id"])) in books
    assert made["item"]["label"] == "<script>"
    wrong = served.client.post(f"/api/pools/{books.item_id}/items", json={"type": "os.system"})
    assert wrong.status_code == 422


def finished(served: Served, job: dict[str, Any]) -> dict[str, Any]:
    while job["state"] == "running":
        job = served.client.get(f"/api/jobs/{job['job']}").json()
    return job


def test_a_task_that_gets_no_thread_is_refused_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    jobs = Jobs()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(MAX_RUNNING + 1):
            with pytest.raises(Refusal, match="in a moment"):
                jobs.start("import", lambda job: None)
    jobs.start("import", lambda job: None)
    jobs.close()


def test_an_index_is_made_used_and_removed(served: Served, books: Pool) -> None:
    path = f"/api/pools/{books.item_id}"
    job = finished(served, served.client.post(f"{path}/indexes", json={"attributes": ["read"]}).json())
    assert (job["state"], job["result"]) == ("done", {"index": "read"})
    assert len(rows(served, books, index="read", first="2020-01", last="2020-01-02")["rows"]) == 10
    assert finished(served, served.client.post(f"{path}/drop-index", json={"name": "read"}).json())["state"] == "done"
    failed = finished(served, served.client.post(f"{path}/drop-index", json={"name": "read"}).json())
    assert "no index" in failed["message"]


def test_words_are_found_as_they_are_typed(served: Served, books: Pool) -> None:
    books.add_index("words", "title", words=True)
    answer = served.client.get(
        f"/api/pools/{books.item_id}/search", params={"q": "title 11", "columns": "title"}
    ).json()
    assert sorted(titles(answer)) == list(range(110, 120))
    ids = served.client.get(f"/api/pools/{books.item_id}/ids", params={"q": "title 11"}).json()["ids"]
    assert set(ids) == {row["id"] for row in answer["rows"]}


def test_a_layout_is_remembered(served: Served, books: Pool) -> None:
    path = f"/api/pools/{books.item_id}"
    layout = {"columns": [{"name": "year", "width": 120}], "index": "year", "reverse": True}
    assert served.client.put(f"{path}/layout", json=layout).status_code == 200
    assert served.client.get(path).json()["layout"] == layout
    assert served.client.put(f"{path}/layout", json={"columns": [{"name": "x", "width": -1}]}).status_code == 400


def test_a_file_is_imported_with_a_report(served: Served) -> None:
    card = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Ada\r\nN:;Ada;;;\r\nEND:VCARD\r\n"
    job = served.client.post("/api/import?name=../../ada.vcf", content=card.encode())
    result = finished(served, job.json())["result"]
    assert (result["added"], result["skipped"]) == (1, 0)
    job = served.client.post("/api/import?name=x.bin", content=b"\x00\x01\x02")
    assert "no format" in finished(served, job.json())["message"]


def test_what_is_shown_is_exported(served: Served, books: Pool) -> None:
    query = {"format": "csv", "index": "year", "reverse": "1", "first": "1910", "last": "1911", "columns": ["title"]}
    answer = served.client.get(f"/pools/{books.item_id}/export", params=query)
    ids = [item.item_id for item in books.query("year", start=1910, end=1912)]
    assert answer.text.splitlines() == ["id,title", f"{ids[1]},title 109", f"{ids[0]},title 110"]
    assert "attachment" in answer.headers["content-disposition"]
    whole = served.client.get(f"/pools/{books.item_id}/export", params={"format": "jsonl"})
    assert len(whole.text.splitlines()) >= COUNT


def test_files_go_up_and_come_down_as_attachments(served: Served, books: Pool) -> None:
    book = next(iter(books))
    page = b"<script>alert(1)</script>"
    headers = {"content-type": "text/html"}
    file = served.client.post("/api/files?name=a.html", content=page, headers=headers).json()["file"]
    value = {"kind": "json", "text": f'{{"$file": {{"digest": "{file["digest"]}", "size": {file["size"]}, "name": "a.html", "media_type": "text/html"}}}}'}  # fmt: skip  # noqa: E501
    assert patch(served, book, str(book.version), scan=value).status_code == 200
    assert book.scan.read() == page
    answer = served.client.get(f"/api/items/{book.item_id}/files/{file['digest']}")
    assert answer.content == page
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "attachment" in answer.headers["content-disposition"]
    assert "sandbox" in answer.headers["content-security-policy"]
    assert served.client.get(f"/api/items/{book.item_id}/files/{'0' * 64}").status_code == 404
