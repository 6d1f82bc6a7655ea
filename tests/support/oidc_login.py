"""The login flow with an OpenID provider, as a browser follows it (the application is the fixture `organised`)."""

import requests
from flask import Flask

from tests.support.users import BrowserClient

CALLBACK_PATH = "/login/organisation/callback"
BASE_URL = "http://localhost"


def authorize_at_provider(browser: BrowserClient, *, next_path: str = "") -> str:
    """Go to the provider and consent; return the URL that it redirects to."""
    login_response = browser.get("/login/organisation", query_string={"next": next_path} if next_path else None)
    assert login_response.status_code == 302, login_response.get_data(as_text=True)
    provider_response = requests.get(login_response.location, allow_redirects=False, timeout=5)
    assert provider_response.headers["Location"].startswith(f"{BASE_URL}{CALLBACK_PATH}?")
    return provider_response.headers["Location"].removeprefix(BASE_URL)


def sign_in_with_provider(app: Flask, *, next_path: str = "", browser: BrowserClient | None = None):
    """Follow the whole flow; return the last response."""
    browser = browser or BrowserClient.for_user(app, None)
    return browser.get(authorize_at_provider(browser, next_path=next_path))


def expect_login_refused(response, *, status: int = 401) -> str:
    """Assert that the sign-in page refused the login; return its message."""
    page = response.get_data(as_text=True)
    assert response.status_code == status, page
    assert 'role="alert"' in page
    return page.partition('role="alert"')[2].partition("<p>")[2].partition("</p>")[0]
