"""HTML of a stranger as HTML that can only be read: for mail.

Promises, whatever comes in:

- What comes out has the tags and attributes of `TAGS` and `ATTRIBUTES` and no others: no scripts, styles sheets, forms,
  frames, objects, SVG or MathML, and no attribute that runs anything.
- Nothing is loaded from anywhere. A picture is one of the message's own parts, named by `cid:` and put in as its
  bytes, or it is left out and counted. A `style` has only the properties of `PROPERTIES`, with values that are words,
  numbers and colours: a URL cannot be written in it.
- A link leads to http, https, mailto or tel; it opens in another tab, which learns nothing of this one. Names and
  passwords in an address are taken out, and a host that is not ASCII is written as what it really is (`xn--...`).
- The time it takes grows with the length, and the length is bounded: what is longer, or nested deeper than any
  program nests, gives None.

Parsing and serialising is `nh3`'s, which does both as browsers do; nothing is changed in the text that it returns.
The page that shows it still belongs in a sandboxed frame with `FRAME_POLICY`: two walls, each of which would do.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import nh3


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Characters of HTML that are worked on, and how deep its elements may be nested.
MAX_HTML = 1_000_000
MAX_DEPTH = 250
# Bytes of a picture, and characters of all of them, each as often as it is shown: they are part of the page.
MAX_PICTURE = 5 << 20
MAX_EMBEDDED = 16 << 20
MAX_LINKS = 500
MAX_ADDRESS = 4_000  # characters of a link's address

# What a picture begins with, and what it then is. A name or a header may say anything.
PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)

TAGS = _words("""
    a abbr address article aside b bdi bdo big blockquote br caption center cite code col colgroup dd del details
    dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark nav ol p
    pre q s samp section small span strike strong sub summary sup table tbody td tfoot th thead time tr tt u ul var
    wbr
""")
# What stands in these is not text for a reader.
DROPPED_WITH_CONTENTS = _words("""
    script style title template noscript noembed noframes iframe object applet svg math textarea select option xmp
    plaintext audio video
""")
_COMMON = {"align", "bgcolor", "dir", "lang", "style", "title", "valign"}
_SIZED = {"height", "width"}
ATTRIBUTES: dict[str, set[str]] = {tag: set(_COMMON) for tag in TAGS}
for _tag, _more in {
    "a": {"href"},
    "col": {"span", "width"},
    "colgroup": {"span", "width"},
    "font": {"color", "face", "size"},
    "hr": {"size", "width", "noshade", "color"},
    "img": {"src", "alt", "border", "hspace", "vspace", *_SIZED},
    "li": {"value"},
    "ol": {"start", "type", "reversed"},
    "table": {"border", "cellpadding", "cellspacing", "summary", "rules", *_SIZED},
    "td": {"colspan", "rowspan", "nowrap", "headers", "scope", *_SIZED},
    "th": {"colspan", "rowspan", "nowrap", "headers", "scope", "abbr", *_SIZED},
    "tr": {"height"},
    "ul": {"type"},
    "details": {"open"},
    "time": {"datetime"},
}.items():
    ATTRIBUTES[_tag] |= _more

# Properties that say how text looks. None of them takes it out of its place, and none may hold a URL.
PROPERTIES = _words("""
    background background-color border border-bottom border-bottom-color border-bottom-style border-bottom-width
    border-collapse border-color border-left border-left-color border-left-style border-left-width border-radius
    border-right border-right-color border-right-style border-right-width border-spacing border-style border-top
    border-top-color border-top-style border-top-width border-width box-sizing caption-side clear color direction
    display float font font-family font-size font-style font-variant font-weight height letter-spacing line-height
    list-style-type margin margin-bottom margin-left margin-right margin-top max-width min-width opacity
    overflow-wrap padding padding-bottom padding-left padding-right padding-top table-layout text-align
    text-decoration text-indent text-overflow text-transform unicode-bidi vertical-align visibility white-space
    width word-break word-spacing word-wrap
""")
# A value of such a property: words, numbers, names of fonts, colours. No backslash, no comment, no function but these.
_VALUE = re.compile(
    r"(?:[\w\s#%.,'\"+-]|\b(?:rgba?|hsla?)\([\d\s.,%/deg+-]{1,60}\))+(?:!\s*important\s*)?", re.IGNORECASE
)
_FUNCTIONS = re.compile(r"([a-z-]*)\(", re.IGNORECASE)
_DECLARATION = re.compile(r"\s*([a-z-]+)\s*:(.*)", re.IGNORECASE | re.DOTALL)

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
# Elements that have no contents, or that end where the next of their kind begins.
_FLAT = _words("""
    area base br col embed hr img input link meta param source track wbr p li td th tr dd dt option
""")

_COLOURED = re.compile(r"\sbgcolor=|\bbackground(?:-color)?:|\scolor=|[\";\s]color:", re.IGNORECASE)

# Of the frame's page. The style sheet is named by its hash, so that nothing else can be one.
FRAME_STYLE = """
:root{color-scheme:light}
html{background:#fff;color:#1b1f23}
:root.plain{color-scheme:light dark}
body{margin:0;padding:14px 16px 40px;font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
img{max-width:100%;height:auto}
pre{white-space:pre-wrap}
table{max-width:100%}
blockquote{margin:.6em 0;padding-left:.9em;border-left:3px solid #9aa4ad}
a[href]:hover::after,a[href]:focus-visible::after{content:attr(href);position:fixed;left:0;bottom:0;max-width:92%;
padding:3px 9px;background:#1b1f23;color:#fff;font:13px/1.4 system-ui,sans-serif;overflow-wrap:anywhere;
text-decoration:none;text-transform:none;letter-spacing:0;z-index:1}
@media(prefers-color-scheme:dark){:root.plain{background:#16191c;color:#dfe3e6}:root.plain a{color:#8cc4e8}}
"""
_HASH = base64.b64encode(hashlib.sha256(FRAME_STYLE.encode()).digest()).decode("ascii")
FRAME_SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
FRAME_POLICY = "; ".join((
    "default-src 'none'",
    "img-src data:",
    f"style-src-elem 'sha256-{_HASH}'",
    "style-src-attr 'unsafe-inline'",
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'self'",
    f"sandbox {FRAME_SANDBOX}",
))  # fmt: skip


class Link(NamedTuple):
    """A link of a message: its words, where it leads, and whether its words name another host than that."""

    text: str
    address: str
    host: str
    misleading: bool


class Sanitised(NamedTuple):
    """HTML that can be shown in the frame, and what a reader should know of it."""

    html: str
    links: list[Link]
    blocked: int  # pictures that would have been loaded from elsewhere, or are none
    plain: bool  # says nothing of colours, so those of the reader may be used


def sanitise(html: str, picture: Callable[[str], bytes | None] = lambda _: None) -> Sanitised | None:
    """What may be shown of `html`; None where it is too long, or nested too deep, to be worked on.

    `picture` gives the bytes of a part of the message by its content id, or None.
    """
    if len(html) > MAX_HTML or is_too_deep(html):
        return None
    attributes = _Attributes(picture)
    clean = nh3.clean(
        html.encode("utf-8", "replace").decode("utf-8").replace("\0", ""),
        tags=set(TAGS),
        clean_content_tags=set(DROPPED_WITH_CONTENTS),
        attributes=ATTRIBUTES,
        attribute_filter=attributes.keep,
        strip_comments=True,
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
        url_schemes={"http", "https", "mailto", "tel", "cid"},
        url_relative="deny",
    )
    if len(clean) > 4 * MAX_HTML + attributes.embedded:
        return None
    reader = _Links()
    reader.feed(clean)
    reader.close()
    return Sanitised(clean, reader.links, attributes.blocked, _COLOURED.search(clean) is None)


def frame_page(content: Sanitised, title: str) -> str:
    """The whole page for the frame."""
    kind = ' class="plain"' if content.plain else ""
    return (
        f'<!doctype html><html{kind}><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{nh3.clean_text(title)}</title><style>{FRAME_STYLE}</style></head><body>{content.html}</body></html>"
    )


def is_too_deep(html: str) -> bool:
    """Whether elements are nested deeper than `MAX_DEPTH`: a parser may need the square of that in time."""
    depth = 0
    for closes, name in _TAG.findall(html):
        if name.lower() in _FLAT:
            continue
        depth = max(0, depth - 1) if closes else depth + 1
        if depth > MAX_DEPTH:
            return True
    return False


def safe_style(text: str) -> str:
    """The declarations of a `style` that may stay."""
    kept = []
    for declaration in text[:20_000].split(";"):
        match = _DECLARATION.fullmatch(declaration)
        if match is None:
            continue
        name, value = match[1].lower(), match[2].strip()
        functions = all(name.lower() in ("rgb", "rgba", "hsl", "hsla") for name in _FUNCTIONS.findall(value))
        if name in PROPERTIES and len(value) <= 300 and functions and _VALUE.fullmatch(value):
            kept.append(f"{name}:{value}")
    return ";".join(kept)


def safe_address(address: str) -> str | None:
    """A link's address as it may be followed, all ASCII; None if it may not be."""
    if len(address) > MAX_ADDRESS:
        return None
    try:
        parts = urlsplit("".join(c for c in address.strip() if c.isprintable()))
        if parts.scheme in ("mailto", "tel"):
            return quote(urlunsplit(parts), safe=_RESERVED)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return None
        host = parts.hostname
        host = f"[{host}]" if ":" in host else host.encode("idna").decode("ascii")
        if parts.port is not None:
            host += f":{parts.port}"
    except ValueError:  # no address; UnicodeError, where the host is no name, is one too
        return None
    if not _HOST.fullmatch(host):
        return None
    path, query, fragment = (quote(part, safe=_RESERVED) for part in (parts.path, parts.query, parts.fragment))
    return urlunsplit((parts.scheme, host, path, query, fragment))


_RESERVED = "%/:?#[]@!$&'()*+,;=~-._"
_HOST = re.compile(r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?", re.IGNORECASE)


def picture_type(data: bytes) -> str | None:
    """The media type of a picture by its first bytes; None if it is none that may be shown."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for start, media_type in PICTURES if data.startswith(start)), None)


class _Attributes:
    """Judges attributes one by one, for `nh3`."""

    def __init__(self, picture: Callable[[str], bytes | None]) -> None:
        self._picture = picture
        self._known: dict[str, str | None] = {}
        self.embedded = 0  # characters of pictures that are in the page by now
        self.blocked = 0

    def keep(self, tag: str, name: str, value: str) -> str | None:
        """The value that an attribute may have; None if it may not be."""
        if name == "style":
            return safe_style(value) or None
        if name == "href":
            return safe_address(value)
        if name == "src":
            return self._source(value)
        return value[:2_000]

    def _source(self, value: str) -> str | None:
        scheme, _, content_id = value.strip().partition(":")
        if scheme.lower() != "cid":
            self.blocked += 1
            return None
        if content_id not in self._known:
            data = self._picture(content_id)
            self._known[content_id] = _embedded(data) if data is not None else None
        found = self._known[content_id]
        if found is None or self.embedded + len(found) > MAX_EMBEDDED:
            self.blocked += 1
            return None
        self.embedded += len(found)
        return found


def _embedded(data: bytes) -> str | None:
    """A picture as an address that has it in itself."""
    media_type = picture_type(data)
    if media_type is None or len(data) > MAX_PICTURE:
        return None
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


class _Links(HTMLParser):
    """Reads the links of HTML that `nh3` has written; it changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[Link] = []
        self._address = ""
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._end()
            self._address = dict(attrs).get("href") or ""
        elif tag == "img" and self._address:
            self._text.append(dict(attrs).get("alt") or "")

    def handle_data(self, data: str) -> None:
        if self._address:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._end()

    def close(self) -> None:
        super().close()
        self._end()

    def _end(self) -> None:
        address, text = self._address, " ".join("".join(self._text).split())
        self._address, self._text = "", []
        if not address or len(self.links) >= MAX_LINKS:
            return
        host = urlsplit(address).hostname or ""
        named = _NAMED_HOST.search(text.lower())
        says = named[1].removeprefix("www.") if named else ""
        same = not says or host == says or host.endswith(f".{says}") or says.endswith(f".{host.removeprefix('www.')}")
        self.links.append(Link(text[:200], address, host, bool(host) and not same))


# A host in the words of a link: "https://example.org/x", "www.example.org", "example.org".
_NAMED_HOST = re.compile(r"(?:https?://|^)((?:[a-z0-9-]{1,63}\.)+[a-z]{2,24})(?=[/:?#\s]|$)")
