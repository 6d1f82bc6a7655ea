"""Every page, light on a desktop and dark on a phone: no policy violation, no console error, no finding of axe."""

import secrets
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import DESKTOP_VIEWPORT, PHONE_VIEWPORT, UserBrowser, click_send, fill_compose_form
from tests.support.http_session import HttpSession

pytestmark = [pytest.mark.e2e, pytest.mark.alike, pytest.mark.timeout(300)]
_LOOKS = [("light", DESKTOP_VIEWPORT), ("dark", PHONE_VIEWPORT)]
_LONG = "A title without an end " * 8
_RICH = f"""# Heading

{"Words " * 60}

- one
- two

> quoted

```
{"code " * 40}
```

| a | b |
|---|---|
| 1 | 2 |

{"x" * 300} [link](https://example.com/{"long" * 40})
"""


@pytest.fixture
def sent(alice: HttpSession) -> dict[str, int]:
    """Broadcasts of every kind, so that every page has something to show."""
    mark = secrets.token_hex(4)
    by_priority = {p: alice.publish(f"{p} {mark}", priority=p) for p in ("LOW", "NORMAL", "HIGH", "URGENT")}
    rich = alice.publish(
        f"{_LONG[:150]} {mark}", content=_RICH, category="Maintenance", requiresAck=True,
        expiresAt="2099-01-01T00:00:00Z", actions=[{"label": "Read more about it", "url": "https://example.com/"}],
    )  # fmt: skip
    recalled = alice.publish(f"Recalled {mark}")
    alice.send("DELETE", f"/api/admin/broadcasts/{recalled}", {"reason": "A mistake"})
    scheduled = alice.publish(f"Scheduled {mark}", scheduledAt="2098-01-01T00:00:00Z")
    draft = alice.publish(f"Draft {mark}", draft=True)
    endpoint = {"url": "https://receiver.example/hook", "eventTypes": ["broadcast.escalated"]}
    webhook = alice.send("POST", "/api/admin/webhooks", endpoint).json["id"]
    ids = {"rich": rich, "recalled": recalled, "scheduled": scheduled, "draft": draft, "webhook": webhook}
    return by_priority | ids


@pytest.mark.parametrize(("scheme", "size"), _LOOKS, ids=[f"{scheme}-{size['width']}" for scheme, size in _LOOKS])
def test_pages_have_no_violations_no_errors_and_no_sideways_scroll(sit_down, sent: dict[str, int], scheme, size):
    problems: list[str] = []
    nobody = sit_down(None, color_scheme=scheme, viewport=size)
    desk = sit_down("alice", color_scheme=scheme, viewport=size)
    desk.page.goto("/inbox")
    desk.page.get_by_role("dialog").get_by_role(
        "button", name="Mark read"
    ).click()  # the urgent one; it has its own test
    expect(desk.page.get_by_role("dialog")).to_have_count(0)
    for where, path in [(nobody, "/login"), *((desk, path) for path in _paths(sent))]:
        problems += _judge(where, path, lambda page, path=path: page.goto(path))
    problems += _judge(desk, "nothing there", lambda page: page.goto("/inbox/999999999"), ignore="404")
    problems += _judge(
        desk, "a form with mistakes", _post_mistakes, ignore="422"
    )  # last: it is not left without a question
    assert not problems, "\n".join(problems)


def _paths(sent: dict[str, int]) -> list[str]:
    inbox = [
        "/inbox",
        "/inbox?view=unread",
        "/inbox?view=archived",
        "/inbox?view=snoozed",
        "/preferences",
        "/inbox?q=surely-nowhere",
        f"/inbox/{sent['rich']}",
    ]
    lists = [f"/console/broadcasts?filter={name}" for name in ("all", "draft", "scheduled", "active", "ended")]
    pages = [f"/console/broadcasts/{sent[kind]}" for kind in ("rich", "recalled", "scheduled", "draft")]
    pages += [f"/console/broadcasts/{sent[kind]}/figures" for kind in ("rich", "recalled", "draft")]
    pages += [f"/console/broadcasts/{sent[kind]}/deliveries" for kind in ("rich", "recalled")]
    edits = [f"/console/broadcasts/{sent[kind]}/edit" for kind in ("rich", "scheduled", "draft")]
    kept = ["/console/library", "/console/library/templates/new", "/console/broadcasts?filter=archived&size=100"]
    people = ["/console/people", "/console/people?q=nobody", "/console/people/1", "/console/people/new"]
    people += ["/console/people/import", "/console/tokens", "/console/audit", "/console/audit?who=nobody", "/account"]
    compose = ["/console/broadcasts/new", "/console/broadcasts/new#step-review"]
    return [
        *inbox,
        "/console/",
        *lists,
        *pages,
        *edits,
        *kept,
        *compose,
        *people,
        "/console/dead-letters",
        "/console/rules",
        "/console/channels",
        "/console/channels/escalation",
        "/console/channels/escalation/new",
        "/console/webhooks",
        f"/console/webhooks/{sent['webhook']}",
        "/console/health",
    ]


def _post_mistakes(page: Page) -> None:
    urgent = page.locator("#urgent[open]")  # interrupts the writer too, whenever it comes
    page.add_locator_handler(urgent, lambda: urgent.locator("[data-urgent=later]").click())
    fill_compose_form(page, "", "", usernames="nobody-here")
    click_send(page)
    page.locator("#errors").wait_for()


def _judge(desk: UserBrowser, name: str, go: Callable[[Page], object], *, ignore: str = "\0") -> list[str]:
    """What is wrong with a page; `ignore` is the status that the browser is expected to complain about."""
    desk.console_errors.clear()
    go(desk.page)
    desk.page.wait_for_load_state("load")
    found = Axe().run(desk.page).response["violations"]
    problems = [f"axe {v['id']}: {v['nodes'][0]['html'][:200]} ({len(v['nodes'])} ×)" for v in found]
    width, room = desk.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    if width > room:
        problems.append(f"{width} px wide in a window of {room} px: {desk.page.evaluate(_WIDEST)}")
    problems += [text for text in desk.console_errors if f"status of {ignore}" not in text]
    return [f"{name}: {problem}" for problem in problems]


_WIDEST = """() => [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && e.checkVisibility())
    .slice(0, 5).map(e => e.tagName + '.' + e.className).join(', ')"""
