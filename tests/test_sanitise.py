"""HTML of mail: nothing in it runs, loads, submits or leaves its place, whatever it is made of."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atop.browser.sanitise import (
    ATTRIBUTES,
    MAX_DEPTH,
    MAX_HTML,
    PROPERTIES,
    TAGS,
    frame_page,
    safe_address,
    safe_style,
    sanitise,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


class Judge(HTMLParser):
    """Another reading of what comes out: everything that is in it is on the list, or the test fails."""

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS
        for name, value in attrs:
            assert name in ATTRIBUTES[tag] | ({"rel", "target"} if tag == "a" else set()), (tag, name)
            if name == "href":
                assert re.match(r"(?:https?://[a-z0-9.\[]|mailto:|tel:)", value, re.IGNORECASE)
                assert value.isascii()
            elif name == "src":
                assert value.startswith("data:image/png;base64,")
            elif name == "style":
                assert not re.search(r"[\\@<>{}]|/\*|url|expression|import|\(\s*[^\d\s]", value, re.IGNORECASE), value
                assert {d.partition(":")[0] for d in value.split(";")} <= PROPERTIES
            elif name == "rel":
                assert value == "noopener noreferrer"
            elif name == "target":
                assert value == "_blank"

    def handle_comment(self, data):
        pytest.fail(f"a comment: {data}")

    def handle_decl(self, decl):
        pytest.fail(f"a declaration: {decl}")

    def unknown_decl(self, data):
        pytest.fail(f"a section: {data}")

    def handle_pi(self, data):
        pytest.fail(f"an instruction: {data}")


def judge(html):
    """What is left of it, which has been looked at, and does not change when it is read again."""
    clean = sanitise(html, lambda content_id: PNG if content_id == "logo" else None)
    if clean is None:
        return ""
    Judge().feed(clean.html)
    again = sanitise(clean.html.replace("data:image/png;base64,", "cid:logo#"), lambda _: PNG)
    assert structure(again.html) == structure(clean.html)
    return clean.html


def structure(html):
    """The HTML without the addresses of pictures and what is the same in each link."""
    return re.sub(r'"data:[^"]*"| (?:rel|target)="[^"]*"', "", html)


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "handler": '<img src="cid:logo" onerror=alert(1) onload=alert(1)>',
    "broken tag": "<img src=x onerror=alert(1)//",
    "javascript": "<a href=\"javascript:alert(1)\">a</a><a href=' java\nscript:alert(1)'>b</a>",
    "encoded javascript": '<a href="&#106;avascript&colon;alert(1)">a</a><a href="jav&#x09;ascript:alert(1)">b</a>',
    "data page": '<a href="data:text/html,<script>alert(1)</script>">a</a>',
    "remote": '<img src="https://e.example/1.gif"><img srcset="https://e.example/2.gif 2x"><img src="//e.example/3">',
    "remote in table": '<table background="https://e.example/1"><td background="//e.example/2">x</table>',
    "remote in css": '<p style="background:url(https://e.example/1)">x<p style=\'background:\\75rl("//e.example")\'>y',
    "css functions": "<p style=\"width:expression(alert(1));color:image-set('a' 1x);height:calc(1px*var(--x))\">x</p>",
    "css out of place": '<p style="position:fixed;top:0;z-index:9;transform:scale(9);margin-left:1px">x</p>',
    "css breakout": '<p style="color:red}</style><script>alert(1)</script>">x</p>',
    "style sheet": "<style>@import '//e.example/1';p{background:url(//e.example/2)}</style><link rel=stylesheet>",
    "base and meta": '<base href="//e.example/"><meta http-equiv=refresh content="0;url=//e.example">',
    "form": '<form action="//e.example"><input name=a><button formaction="//e.example">b</button><textarea>c</form>',
    "svg": '<svg><script>alert(1)</script><a xlink:href="javascript:alert(1)"><image href="//e.example/1"/></svg>',
    "svg style": "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "math": '<math><mi xlink:href="javascript:alert(1)">x</mi><annotation-xml encoding="text/html"><script>a</script>',
    "mutation noscript": '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "mutation mglyph": "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "mutation table": "<table><a><math><style><!--</style></math><img src=x onerror=alert(1)>--></table>",
    "mutation select": '<select><template><style><!--</style><a rel="--></style></template><img onerror=alert(1)>">',
    "mutation title": "<svg><title><style><img src=x onerror=alert(1)></style></title></svg>",
    "mutation comment": "<!--><img src=x onerror=alert(1)>--><!-- --!><img src=x onerror=alert(1)> -->",
    "conditional comment": "<!--[if mso]><script>alert(1)</script><![endif]--><![CDATA[<script>alert(1)</script>]]>",
    "nested": "<scr<script>ipt>alert(1)</scr</script>ipt><<b>b>x<</b>/b>",
    "nul": "<scr\0ipt>alert(1)</scr\0ipt><img s\0rc=x on\0error=alert(1)>",
    "odd spaces": "<img/src=x/onerror=alert(1)><a\x0chref=javascript:alert(1)\x0b>x</a>",
    "utf-7": "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "half a surrogate": "<b>\ud800<script>\udfff</script>",
    "embedded": "<iframe srcdoc='<script>alert(1)</script>'></iframe><object data=x></object><embed src=x>",
    "media": "<video poster=//e.example/1><source src=//e.example/2></video><audio src=//e.example/3 autoplay></audio>",
    "picture": "<picture><source srcset=//e.example/1><img src=//e.example/2></picture>",
    "clobbering": "<a id=body name=cookie>x</a><img name=getElementById><p class=toast id=main>x</p>",
    "link tricks": '<a href="https://a@e.example" ping="//p.example" download target=_top rel=opener>x</a>',
    "slots": "<div is=x-y slot=z contenteditable popover id=p><button popovertarget=p>x</button></div>",
    "import": "<link rel=prefetch href=//e.example><link rel=dns-prefetch href=//e.example>",
    "cid page": '<a href="cid:logo">x</a><iframe src="cid:logo"></iframe>',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_html_leaves_nothing_that_acts(name):
    html = judge(HOSTILE[name])
    assert "e.example/" not in re.sub(r'href="[^"]*"', "", html)
    assert "<script" not in html
    assert "onerror=" not in re.sub(r'"[^"]*"', "", html).replace("&gt;", "")


PIECES = st.sampled_from(
    [
        *HOSTILE.values(),
        "<",
        ">",
        "</",
        "<!--",
        "-->",
        "--!>",
        '"',
        "'",
        "`",
        "=",
        "/",
        "&lt;",
        "&#0;",
        "]]>",
        "\0",
        "\n",
        "<table>",
        "</table>",
        "<td>",
        "<p>",
        "</p>",
        "<a href=https://x.example>",
        "</a>",
        "<b>",
        "</b>",
        "<svg>",
        "</svg>",
        "<math>",
        "</math>",
        "<mtext>",
        "<mglyph>",
        "<style>",
        "</style>",
        "<title>",
        "</title>",
        "<noscript>",
        "<template>",
        "<select>",
        "<option>",
        "<textarea>",
        "</textarea>",
        "<xmp>",
        "<plaintext>",
        "<foreignobject>",
        "<desc>",
        "<li>",
        "<pre>",
        "<p style='",
        "color:red;",
        "background:",
        "url(",
        "\\75 rl(",
        "/*",
        "*/",
        "rgb(",
        ")",
        "<img src=cid:logo ",
        "alt=",
        "onerror=alert(1) ",
        'title="',
        "<font color=",
        "<body onload=alert(1)>",
        "<html>",
        "<frameset>",
        "<br/>",
        "é",
        "💥",
    ]
)


@settings(deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=25).map("".join))
def test_whatever_is_put_together_what_comes_out_is_on_the_lists(html):
    judge(html)


@settings(deadline=None)
@given(st.text(alphabet="colr:;()\\/*'\"url,%#!-01 \n@{}<>&", max_size=60))
def test_a_style_keeps_no_url_and_no_escape(text):
    for prefix in ("", "color:", "background:", "font-family:"):
        kept = safe_style(prefix + text)
        assert not re.search(r"[\\@<>{}*&]|url\(", kept)
        assert safe_style(kept) == kept


@settings(deadline=None)
@given(st.text(max_size=40), st.sampled_from(["https://", "http:", "HTTPS://a.b/", "javascript:", "mailto:", "//", ""]))
def test_an_address_is_followed_only_where_it_is_one(text, start):
    address = safe_address(start + text)
    assert address is None or (address.isascii() and re.match(r"https?://[a-z0-9._\[-]|mailto:|tel:", address))


def test_ordinary_mail_stays_as_it_is():
    html = (
        '<h1 style="color:#336;font-family:Arial, sans-serif">News</h1><table width="600" cellpadding="0" '
        'bgcolor="#ffffff"><tbody><tr><td align="center" style="padding:12px">Hello <b>Ada</b>,'
        "<br>see you.</td></tr></tbody></table><ul><li>one</li></ul><blockquote>quoted</blockquote>"
    )
    clean = sanitise(html)
    assert clean.html == html
    assert not clean.plain
    assert clean.blocked == 0
    assert sanitise("<p>Hello <i>you</i></p>").plain


def test_pictures_of_the_message_are_put_in_and_others_counted():
    html = (
        '<img src="cid:logo" alt="Logo"><img src="https://t.example/open.gif"><img src="cid:other"><img src="cid:svg">'
    )
    parts = {"logo": PNG, "svg": b"<svg onload=alert(1)>"}
    clean = sanitise(html, parts.get)
    assert clean.html.count("data:image/png;base64,") == 1
    assert 'alt="Logo"' in clean.html
    assert clean.blocked == 3


def test_links_say_where_they_lead():
    links = sanitise(
        '<a href="https://evil.example/login">https://bank.example/login</a> <a href="https://www.shop.example/x">'
        'shop.example</a> <a href="https://bank.example@evil.example/">here</a> <a href="https://b\u0430nk.example">x</a>'
        '<a href="https://t.example/1">Read <b>more</b></a>'
    ).links
    assert [(link.text, link.host, link.misleading) for link in links] == [
        ("https://bank.example/login", "evil.example", True),
        ("shop.example", "www.shop.example", False),
        ("here", "evil.example", False),
        ("x", "xn--bnk-6cd.example", False),
        ("Read more", "t.example", False),
    ]


def test_what_is_too_long_or_too_deep_is_not_worked_on():
    assert sanitise("x" * (MAX_HTML + 1)) is None
    assert sanitise("<div>" * (MAX_DEPTH + 1)) is None
    assert sanitise("<div></div>" * 5_000) is not None


def test_the_page_of_the_frame_cannot_be_left_by_its_title():
    page = frame_page(sanitise("<p>x</p>"), "</title><script>alert(1)</script>")
    assert "<script" not in page
