"""A reader's browser runs nothing that a sender writes."""

import json
import secrets

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import UserBrowser
from tests.support.http_session import HttpSession
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

_ALERT = "window.top.xss=1,alert(1)"
CORPUS = [
    f"<script>{_ALERT}</script>",
    f"<img src=x onerror='{_ALERT}'>",
    f"<svg/onload='{_ALERT}'>",
    f"<svg><script>{_ALERT}</script></svg>",
    f"<svg><animate onbegin='{_ALERT}' attributeName=x dur=1s>",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror={_ALERT}&gt;'>",
    f"<iframe srcdoc='<script>{_ALERT}</script>'></iframe>",
    f"<body onload='{_ALERT}'>",
    f"<details open ontoggle='{_ALERT}'>x</details>",
    f"<input autofocus onfocus='{_ALERT}'>",
    f"<video><source onerror='{_ALERT}'></video>",
    f"<form action='javascript:{_ALERT}'><button>press</button></form>",
    f"<a href='javascript:{_ALERT}'>link</a>",
    f"[link](javascript:{_ALERT})",
    f"[link](JaVaScRiPt:{_ALERT})",
    f"[link](\x01javascript:{_ALERT})".replace("\x01", "&#1;"),
    f"[link](java&#10;script:{_ALERT})",
    f"[link](data:text/html,<script>{_ALERT}</script>)",
    f"[link](vbscript:{_ALERT})",
    f'[link](https://example.com "onmouseover={_ALERT}")',
    f"![image](x\" onerror=\"{_ALERT})",
    f"<https://example.com/\"onmouseover=\"{_ALERT}>",
    f"<p style='background:url(javascript:{_ALERT})'>x</p>",
    f"<link rel=stylesheet href='data:text/css,*{{color:red}}'><meta http-equiv=refresh content='0;url=javascript:{_ALERT}'>",
    f"<base href='https://evil.example/'><div hx-get='/logout' hx-trigger='load'>x</div><div hx-on:click='{_ALERT}'>x</div>",
    f"`<img src=x onerror={_ALERT}>`",
    f"```\n</code></pre><script>{_ALERT}</script>\n```",
    f"</textarea></title></style><script>{_ALERT}</script>",
    f"{{{{constructor.constructor('{_ALERT}')()}}}}",
    "data: MESSAGE\n\nevent: SIGNED_OUT\ndata: {}\n\nid: 0-0\n\n",
    f"<template><script>{_ALERT}</script></template><noscript><p title='</noscript><img src=x onerror={_ALERT}>'>",
    f"<div id=feed><form id=sign-out></form><a id=connection name=body href='//evil.example'>{_ALERT}</a></div>",
]  # fmt: skip
_ALLOWED = [
    *("p", "br", "strong", "em", "s", "del", "code", "pre", "ul", "ol", "li", "blockquote", "a", "hr"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"),
]


@pytest.mark.parametrize("arrival", ["streamed", "loaded"])
def test_hostile_texts_are_shown_and_nothing_of_them_runs(sit_down, system: System, alice: HttpSession, arrival: str):
    bob = sit_down("bob")
    if arrival == "streamed":
        bob.open_inbox()
    mark = secrets.token_hex(4)
    sent = []
    for n, text in enumerate(CORPUS):
        printable = "".join(c for c in text if c.isprintable())
        sent.append(alice.publish(f"{n} {mark} {printable}"[:200], content=text, category=printable[:40]))
    if arrival == "loaded":
        bob.open_inbox()
        bob.scroll_to(bob.card(sent[0]))
    for broadcast_id in sent:
        expect(bob.card(broadcast_id)).to_be_visible()
    _expect_inert(bob)
    for broadcast_id in sent[:3]:
        bob.page.goto(f"/inbox/{broadcast_id}")
        _expect_inert(bob)
    assert bob.page.url.endswith(f"/inbox/{sent[2]}"), "the page was led elsewhere"


def test_hostile_events_from_kafka_are_shown_and_nothing_of_them_runs(sit_down, system: System):
    """By what the bridge calls for each record; a browser has the inbox open."""
    bob, mark = sit_down("bob").open_inbox(), secrets.token_hex(4)
    source = f"https://example.com/{mark}?<script>{_ALERT}</script>"
    batch = []
    for n, text in enumerate(CORPUS):
        printable = "".join(c for c in text if c.isprintable())
        data = {
            "title": f"{n} {mark} {printable}"[:200],
            "content": text,
            "category": printable[:40],
            "targetType": "ALL",
        }
        envelope = {"specversion": "1.0", "id": f"{n} {text[:50]}", "type": "broadcast.publish.v1"}
        batch.append(envelope | {"source": source if n % 2 else f"https://example.com/{mark}", "data": data})
    outcomes = json.loads(system.run_module("tests.support.ingest_driver", stdin=json.dumps([batch])))["outcomes"]
    shown = [id for kind, id, _ in outcomes if kind == "published"]
    assert len(shown) >= len(CORPUS) / 2, outcomes
    for broadcast_id in shown:
        expect(bob.card(broadcast_id)).to_be_visible()
    _expect_inert(bob)
    bob.page.goto(f"/inbox/{shown[0]}")
    _expect_inert(bob)


def test_hostile_texts_are_inert_in_the_console(sit_down, alice: HttpSession):
    desk = sit_down("alice")
    for n, text in enumerate(CORPUS[:6]):
        sent = alice.publish(f"{n} {secrets.token_hex(4)} {text}"[:200], content=text)
        desk.page.goto(f"/console/broadcasts/{sent}")
        _expect_inert(desk)
    desk.page.goto("/console/broadcasts")
    _expect_inert(desk)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "java\nscript:alert(1)"])
def test_action_that_is_no_web_address_is_refused(system: System, alice: HttpSession, url: str):
    draft = {"title": "T", "content": "C", "targetType": "ALL", "actions": [{"label": "Press", "url": url}]}
    assert alice.send("POST", "/api/admin/broadcasts", draft).status in (400, 422)


def _expect_inert(desk: UserBrowser) -> None:
    found = desk.page.evaluate(_STRANGE, _ALLOWED)
    assert found == []
    assert desk.page.evaluate("window.xss === undefined")
    assert desk.dialogs == []


_STRANGE = """allowed => [...document.querySelectorAll('.card-body *')].flatMap(e => {
    const odd = allowed.includes(e.localName) ? [] : ['<' + e.localName + '>'];
    for (const {name, value} of e.attributes) {
        const fine = ['href', 'rel', 'title', 'class', 'target', 'dir', 'start', 'lang'].includes(name);
        if (!fine || (name === 'href' && !/^(https?:|mailto:|tel:)/.test(value))) odd.push(`${e.localName} ${name}=${value}`);
    }
    return odd;
})"""
