"""Files: import by dropping one on the page, export of what is shown, files of items up and down.

Promises: what is uploaded is written to a file of its own as it comes, never held in memory, and refused past its
limit; its name is a label and never a path. What is sent down is an attachment of a type that no browser executes.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from atop import File, FileInfo, Item, NoSuchFile, UnknownFormat
from atop.browser.cells import ABSENT, stored_of
from atop.browser.changes import find, find_pool
from atop.browser.jobs import Job
from atop.browser.table import columns_in, order_of
from atop.browser.views import Call, Json, Refusal, View, action, page
from atop.pim.cells import Column, write_cell
from atop.pim.exporting import FORMATS, SUFFIXES, export_pool
from atop.pim.importing import import_file
from atop.values import walk

# Bytes of one import, and of one file of an item.
MAX_IMPORT = 4 << 30
MAX_UPLOAD = 2 << 30
WRITE_AT_ONCE = 1 << 20
CHUNK = 256 << 10
LONGEST_NAME = 255
# Skipped records that an answer names; all are counted.
MAX_NAMED = 100
EXPORT_CHUNK = 200

# Types that a browser shows and never executes; everything else is sent as plain octets.
SAFE_TYPES = frozenset({
    "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "text/plain", "application/pdf",
    "audio/mpeg", "audio/ogg", "audio/wav", "video/mp4", "video/webm",
})  # fmt: skip

MEDIA_TYPES = {
    "vcard": "text/vcard; charset=utf-8",
    "vcard3": "text/vcard; charset=utf-8",
    "icalendar": "text/calendar; charset=utf-8",
    "mbox": "application/mbox",
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl; charset=utf-8",
}


async def spool(request: Request, target: IO[bytes], limit: int) -> int:
    """Write the body of a request to a file; returns its size. Raises Refusal past the limit."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and len(announced) < 19 and int(announced) > limit:
        raise Refusal(413, f"A file of more than {limit:,} bytes is not taken.")
    waiting, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refusal(413, f"A file of more than {limit:,} bytes is not taken.")
        waiting += chunk
        if len(waiting) >= WRITE_AT_ONCE:
            await run_in_threadpool(target.write, bytes(waiting))
            waiting.clear()
    await run_in_threadpool(target.write, bytes(waiting))
    await run_in_threadpool(target.flush)
    return size


def file_name(request: Request) -> str:
    """What the sender calls the file: its last part, without what no file name has."""
    name = request.query_params.get("name", "").replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if c.isprintable() and not "\ud800" <= c <= "\udfff")
    return name[-LONGEST_NAME:] or "file"


async def take_import(request: Request) -> Response:
    """POST /api/import?name=contacts.vcf, the file as the body: a job, which tells what became of each record."""
    browser = request.app.state.browser
    name = file_name(request)
    directory = tempfile.TemporaryDirectory(prefix="atop-import-")
    try:
        path = Path(directory.name) / f"import{Path(name).suffix[:20].lower()}"
        with path.open("wb") as target:
            size = await spool(request, target, MAX_IMPORT)
        if not size:
            raise Refusal(422, f"{name} is empty.")

        def work(job: Job) -> dict[str, Any]:
            with directory:
                try:
                    report = import_file(browser.store, path, progress=job.progress)
                except UnknownFormat:
                    raise Refusal(
                        422,
                        f"{name} is of no format that can be imported: contacts (.vcf), calendars (.ics), mailboxes "
                        "(.mbox), tables (.csv) and exports of Atop (.jsonl) can be.",
                    ) from None
                named = [*report.skipped, *report.incomplete][:MAX_NAMED]
                return {
                    "added": report.added,
                    "updated": report.updated,
                    "unchanged": report.unchanged,
                    "skipped": report.skipped_count,
                    "incomplete": report.incomplete_count,
                    "named": [{"line": one.line, "reason": one.reason} for one in named],
                }

        job = browser.jobs.start(f"import {name}", work)
    except BaseException:
        directory.cleanup()
        raise
    return Json(job.describe())


async def take_file(request: Request) -> Response:
    """POST /api/files?name=photo.jpg, the file as the body: what an attribute is then set to.

    The contents stay for an hour; after that, only if an item has been given the file.
    """
    store = request.app.state.browser.store
    name = file_name(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()[:100]

    def keep(stream: IO[bytes]) -> File:
        stream.seek(0)
        return store.file(stream, name=name, media_type=media_type)  # type: ignore[no-any-return]  # a Store's

    with tempfile.TemporaryFile() as target:
        await spool(request, target, MAX_UPLOAD)
        file = await run_in_threadpool(keep, target)
    described = {"digest": file.digest.hex(), "size": file.size, "name": file.name, "media_type": file.media_type}
    return Json({"file": described})


def give_file(call: Call) -> Response:
    """GET /api/items/ID/files/DIGEST: the contents of a file that the item has."""
    item = find(call)
    wanted = call.path["digest"]
    info = next((f for f in files_of(item) if f.digest.hex() == wanted), None)
    if info is None:
        raise NoSuchFile(f"item {item.item_id} has no such file (any more)")
    file = call.store._file(info)
    stream = file.open()
    media_type = info.media_type if info.media_type in SAFE_TYPES else "application/octet-stream"
    headers = {
        **attachment(info.name or "file"),
        "content-length": str(info.size),
        "content-security-policy": "default-src 'none'; sandbox",
    }
    return StreamingResponse(_chunks(stream), media_type=media_type, headers=headers)


def files_of(item: Item) -> Iterator[FileInfo]:
    """The files in an item's attributes, at any depth."""
    for value in stored_of(item).values():
        for found in walk(value):
            if isinstance(found, FileInfo):
                yield found


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    with contextlib.closing(stream):
        while chunk := stream.read(CHUNK):
            yield chunk


def attachment(name: str) -> dict[str, str]:
    """The header that has a browser keep what comes as a file of this name (RFC 6266)."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in " ._-") else "_" for c in name)[:150]
    encoded = quote(name.encode("utf-8", "replace")[:600], safe="")
    return {"content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"}


def export(call: Call) -> Response:
    """GET /pools/ID/export?format=csv: what the table shows, as a file.

    With `columns`, CSV has these, and the rows that `index`, `reverse`, `prefix`, `first`, `last` and `q` say. The
    other formats have the whole pool, in the order of ids.
    """
    pool = find_pool(call)
    kind = call.text("format", 20) or "csv"
    if kind not in FORMATS:
        raise Refusal(400, f"format should be one of {', '.join(FORMATS)}.")
    suffix = next(s for s, k in SUFFIXES.items() if k == ("vcard" if kind == "vcard3" else kind))
    headers = attachment(f"{pool.name or 'pool'}{suffix}")
    columns = columns_in(call)
    if kind == "csv" and columns:
        return StreamingResponse(_table(call, columns), media_type=MEDIA_TYPES[kind], headers=headers)
    target = tempfile.TemporaryFile()  # noqa: SIM115 - the answer closes it, when it is sent
    try:
        export_pool(call.store, pool, target, kind)  # type: ignore[arg-type]  # checked above
        headers["content-length"] = str(target.tell())
        target.seek(0)
    except BaseException:
        target.close()
        raise
    return StreamingResponse(_chunks(target), media_type=MEDIA_TYPES[kind], headers=headers)


def _table(call: Call, columns: list[str]) -> Iterator[bytes]:
    """The lines of a table. What is wrong with the request is raised before the first is asked for."""
    pool = find_pool(call)
    order = order_of(call, pool)
    words = call.text("q").strip()
    found = pool.search(words if words.endswith("*") else f"{words}*") if words else _all(pool, order)
    first = list(itertools.islice(found, EXPORT_CHUNK))
    return _lines(itertools.chain(first, found), columns)


def _lines(items: Iterator[Item], columns: list[str]) -> Iterator[bytes]:
    yield _line(["id", *columns])
    while batch := list(itertools.islice(items, EXPORT_CHUNK)):
        yield b"".join(_csv_row(item, columns) for item in batch)


def _all(pool: Any, order: Any) -> Iterator[Item]:
    """All items of an order, page by page."""
    place: dict[str, Any] = {"before": b"\xff" * 20} if order.reverse else {}
    while True:
        found = pool.page(order.index, EXPORT_CHUNK, **place, **order.part)
        yield from reversed(found.items) if order.reverse else found.items
        step = found.previous if order.reverse else found.next
        if step is None or not found.items:
            return
        place = {"before": step} if order.reverse else {"after": step}


def _csv_row(item: Item, columns: list[str]) -> bytes:
    attributes = stored_of(item)
    return _line([
        str(item.item_id),
        *(write_cell(attributes[name], Column(ABSENT, _plain(attributes[name]))) if name in attributes else ""
          for name in columns),
    ])  # fmt: skip


def _plain(value: Any) -> str:
    """The type that a cell is written plainly for: the value's own, for those who read the table."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__name__}" if kind.__module__ == "datetime" else kind.__name__


def _line(cells: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode("utf-8", "replace")


VIEW = View(
    routes=[
        Route("/api/import", take_import, methods=["POST"]),
        Route("/api/files", take_file, methods=["POST"]),
        action("/api/items/{item_id:int}/files/{digest:str}", give_file, methods=["GET"]),
        page("/pools/{pool_id:int}/export", export),
    ],
)
