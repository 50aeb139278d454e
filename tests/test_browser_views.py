"""The views of contacts, mail and notes: what they show, and that no item, whatever is in it, breaks them."""

from __future__ import annotations

import contextlib
import datetime
import re
from typing import Any

import pytest
from browsing import Served

from atop import Item, Store, UnstorableValue
from atop.pim import Contact, Event, Message, Note, open_pool

UTC = datetime.UTC
PNG = b"\x89PNG\r\n\x1a\n" + bytes(30)
SCRIPT = "<script>alert('x')</script>"

# What a program may have put into any attribute.
ODD: dict[str, Any] = {
    "number": -7,
    "float": float("nan"),
    "bytes": b"\xff\x00",
    "script": SCRIPT,
    "empty": "",
    "spaces": " \n\t",
    "huge": "x\u202e" * 20_000,
    "list of odd": [None, 5, {}, {"value": 5}, {"value": SCRIPT, "kinds": 5}, [1], "x" * 5_000],
    "dict": {"a": 1, "value": ["x"]},
    "date": datetime.date(1, 1, 1),
    "first moment": datetime.datetime(1, 1, 1),
    "last moment": datetime.datetime(9999, 12, 31, 23, 59, tzinfo=datetime.timezone(-datetime.timedelta(hours=23))),
    "time": datetime.time(5, 5),
    "bool": True,
}

KINDS: dict[str, tuple[type[Item], str, str]] = {
    "contact": (
        Contact,
        "/contacts",
        "name email emails phones addresses organization departments birthday birthday_text urls note categories photo "
        "members nickname",
    ),
    "message": (
        Message,
        "/mail",
        "subject sender to date text html attachments inline flags headers labels references message_id folder",
    ),
    "note": (Note, "/notes", "title text created modified day tags attachments"),
}


def texts(served: Served, *paths: str) -> str:
    """The pages, each of which is answered well."""
    found = []
    for path in paths:
        response = served.client.get(path)
        assert response.status_code == 200, (path, response.text[:500])
        found.append(response.text)
    return "\n".join(found)


@pytest.mark.parametrize("kind", KINDS)
def test_items_with_anything_in_them_are_shown(served: Served, kind: str) -> None:
    cls, path, names = KINDS[kind]
    pool = open_pool(served.store, kind)  # type: ignore[arg-type]
    items = [Item(served.store)]
    pool.add(items[0])
    for number, value in enumerate(ODD.values()):
        with served.store.transaction():
            items.append(item := cls(served.store, uid=str(number)))
            pool.add(item)
        for name in names.split():
            with contextlib.suppress(UnstorableValue):  # what is indexed has an order, so that it is no list
                setattr(item, name, value)
    shown = texts(served, path, f"{path}?part=list", f"{path}?q=script", f"{path}?q=x&from=3")
    for item in items:
        shown += texts(served, f"{path}/{item.item_id}", f"{path}/{item.item_id}?part=pane")
        answer = served.client.get(f"{path}/{item.item_id}/{'photo' if kind == 'contact' else 'html'}")
        assert answer.status_code in (200, 404)
    assert SCRIPT not in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize("path", ["/contacts", "/mail", "/notes"])
def test_a_store_without_any_says_what_to_do(served: Served, path: str) -> None:
    assert "atop import" in texts(served, path)
    assert served.client.get(f"{path}/77").status_code in (200, 404)


@pytest.mark.parametrize(
    "query",
    ["after=zz", "after=" + "ff" * 400, "count=0", "count=x", "from=-1", "before=0", "letter=%ff", "q=*", "part=x"],
)
def test_what_an_address_says_is_checked(served: Served, query: str) -> None:
    for kind, path in (("contact", "/contacts"), ("message", "/mail"), ("note", "/notes")):
        open_pool(served.store, kind).add(Item(served.store))  # type: ignore[arg-type]
        assert served.client.get(f"{path}?{query}").status_code in (200, 400)


def mailbox(store: Store, count: int) -> list[Message]:
    with store.transaction():
        pool = open_pool(store, "message")
        messages = [
            Message(
                store,
                subject=f"Subject {number}",
                sender=f"Person {number} <p{number}@mail.example>",
                date=datetime.datetime(2025, 1, 1, tzinfo=UTC) + datetime.timedelta(hours=number),
                text=f"text {number} of the harbour",
                folder="Sent" if number % 10 == 0 else "Inbox",
                message_id=f"{number}@x",
                in_reply_to=f"{number - 1}@x" if number % 10 in (2, 3) else "",
            )
            for number in range(count)
        ]
        for message in messages:
            pool.add(message)
    return messages


def test_mail_is_read_to_the_end_page_by_page_and_folder_by_folder(served: Served) -> None:
    mailbox(served.store, 150)
    for query, count in (("", 150), ("folder=Sent", 15), ("folder=Inbox", 135), ("q=harb", 150), ("q=harbour+7*", 11)):
        path, seen = f"/mail?part=list&{query}", []
        while path:
            text = texts(served, path)
            seen += re.findall(r'class="row [^>]*data-id="(\d+)"', text)
            more = re.search(r'class="more" href="([^"]+)"', text)
            path = more[1].replace("&amp;", "&") + "&part=list" if more else ""
        assert len(seen) == len(set(seen)) == count, query
    assert served.client.get("/mail").text.index("Subject 149") < served.client.get("/mail").text.index("Subject 148")


def test_a_message_is_shown_with_its_conversation(served: Served) -> None:
    messages = mailbox(served.store, 30)
    for indexed in (True, False):
        text = texts(served, f"/mail/{messages[12].item_id}")
        assert "Conversation, 3 messages" in text
        assert all(f'data-open="{messages[n].item_id}"' in text for n in (11, 13))
        if indexed:  # an older pool has no index of replies: those are found by their subject
            served.store.pool("messages").drop_index("in_reply_to")
            for number, subject in ((11, "Plans"), (12, "Re: Plans"), (13, "AW: Re: Plans")):
                messages[number].subject = subject
            served.store.pool("messages")
            messages[13].subject = "aw: plans"


def test_html_mail_is_shown_in_a_frame_that_can_do_nothing(served: Served) -> None:
    store = served.store
    html = '<p onclick="x()">Hello</p><img src="cid:logo"><img src="https://t.example/1"><script>alert(1)</script>'
    with store.transaction():
        message = Message(store, subject="<b>", html=html, inline={"logo": store.file(PNG, name="logo.png")})
        open_pool(store, "message").add(message)
    page = texts(served, f"/mail/{message.item_id}")
    assert 'sandbox="allow-popups allow-popups-to-escape-sandbox"' in page
    assert "1 picture from elsewhere was not loaded" in page
    frame = served.client.get(f"/mail/{message.item_id}/html")
    policy = frame.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    assert "data:image/png" in frame.text
    assert "t.example" not in frame.text
    assert "<script" not in frame.text


def test_contacts_begin_at_a_letter_and_go_both_ways(served: Served) -> None:
    with served.store.transaction():
        pool = open_pool(served.store, "contact")
        for letter in "abcdeéж":
            for number in range(60):
                pool.add(Contact(served.store, name=f"{letter.upper()}nna {number:02}"))
    start = texts(served, "/contacts")
    assert [letter in start for letter in ("letter=a", "letter=%C3%A9", "letter=%D0%B6")] == [True, True, True]
    rows = texts(served, "/contacts?letter=c&part=list")
    assert "Cnna 00" in rows
    assert "Bnna 59" not in rows
    before = texts(served, rows.split('class="less" href="')[1].split('"')[0] + "&part=list")
    assert "Bnna 59" in before
    assert "Cnna 00" not in before


def test_a_card_shows_what_there_is(served: Served) -> None:
    store = served.store
    with store.transaction():
        contact = Contact(
            store,
            name="Ada Lovelace",
            emails=[{"value": "ada@example.org", "kinds": ["work"]}, {"value": "x", "label": SCRIPT}],
            phone="+44 1",
            addresses=[{"street": "St James's Square 12", "city": "London", "kinds": ["home"]}],
            birthday_text="--12-10",
            urls=[{"value": "javascript:alert(1)"}, {"value": "https://ada.example/"}],
            photo=store.file(PNG, name="ada.svg", media_type="image/svg+xml"),
        )
        open_pool(store, "contact").add(contact)
    card = texts(served, f"/contacts/{contact.item_id}")
    for shown in ('href="mailto:ada@example.org"', 'href="tel:+441"', "10 December", 'href="https://ada.example/"'):
        assert shown in card
    assert 'href="javascript' not in card
    assert SCRIPT not in card
    photo = served.client.get(f"/contacts/{contact.item_id}/photo")
    assert photo.headers["content-type"] == "image/png"
    with store.transaction():
        contact.photo = store.file(b"<svg onload=alert(1)>", media_type="image/png")
    assert served.client.get(f"/contacts/{contact.item_id}/photo").status_code == 404


def test_an_event_is_no_contact_and_does_no_harm(served: Served) -> None:
    event = Event(served.store, summary="x")
    open_pool(served.store, "contact")
    open_pool(served.store, "message")
    texts(served, f"/contacts/{event.item_id}", f"/mail/{event.item_id}")


@pytest.mark.parametrize("number", ["0", "99999999999999999999999999", "9223372036854775808"])
def test_an_id_that_nothing_has_is_told_as_such(served: Served, number: str) -> None:
    for kind in ("contact", "message", "note", "event"):
        open_pool(served.store, kind)  # type: ignore[arg-type]
    paths = ("/contacts/{}", "/contacts/{}/photo", "/mail/{}", "/mail/{}/html", "/notes/{}", "/history/{}")
    for path in (*paths, "/calendar/event/{}"):
        assert served.client.get(path.format(number)).status_code == 404, path
    answer = served.client.post(f"/api/conflicts/{number}", json={"keep": "other"})
    assert answer.status_code in (200, 404)
    assert not answer.json().get("settled")
