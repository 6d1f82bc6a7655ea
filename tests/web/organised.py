"""The way to the organisation's provider and back, as a browser goes it (the application is the fixture `organised`)."""

import requests
from flask import Flask

from tests.cast import Client

CALLBACK = "/login/organisation/callback"
LOCAL = "http://localhost"


def walk(browser: Client, *, next: str = "") -> str:
    """Go to the provider, agree there; return the address it sends the browser back to."""
    begun = browser.get("/login/organisation", query_string={"next": next} if next else None)
    assert begun.status_code == 302, begun.get_data(as_text=True)
    agreed = requests.get(begun.location, allow_redirects=False, timeout=5)
    assert agreed.headers["Location"].startswith(f"{LOCAL}{CALLBACK}?")
    return agreed.headers["Location"].removeprefix(LOCAL)


def sign_in(app: Flask, *, next: str = "", browser: Client | None = None):
    """The whole way; the last answer."""
    browser = browser or Client.of(app, None)
    return browser.get(walk(browser, next=next))


def refused(answer, *, status: int = 401) -> str:
    """The sentence; signing in was refused on the sign-in page."""
    page = answer.get_data(as_text=True)
    assert answer.status_code == status, page
    assert 'role="alert"' in page
    return page.partition('role="alert"')[2].partition("<p>")[2].partition("</p>")[0]
