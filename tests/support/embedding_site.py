"""A site that embeds inboxes, and its visitors: fixtures for the tests of the embedded inbox."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser.conftest import DESKTOP_VIEWPORT
from tests.support.http_session import HttpSession
from tests.support.ports import find_free_port, is_listening
from tests.support.system import PROJECT_ROOT, System, run_system, wait_for


class EmbeddingSite:
    """`docs/embed/server.py` on its own port; `url` has the name localhost: cross-site, not only cross-origin."""

    def __init__(self, port: int, system: System):
        self.url = f"http://localhost:{port}"
        token = system.run_flask("create-token", "--user", "alice", "--scope", "embed", "--label", "Intranet")
        environ = os.environ | {"BROADCAST_URL": system.url, "BROADCAST_TOKEN": token}
        self._process = subprocess.Popen(
            [sys.executable, PROJECT_ROOT / "docs/embed/server.py", str(port)], env=environ, stderr=subprocess.DEVNULL
        )
        wait_for(lambda: is_listening(port), description="the embedding site to listen")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def port() -> int:
    return find_free_port()


@pytest.fixture(scope="module")
def embedding(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that allows one site, and `http://elsewhere.example`, which does not exist."""
    origins = f"http://localhost:{port},http://elsewhere.example"
    with run_system(tmp_path_factory.mktemp("embedding"), EMBED_ORIGINS=origins) as running:
        yield running


@pytest.fixture(scope="module")
def site(embedding: System, port: int) -> Iterator[EmbeddingSite]:
    site = EmbeddingSite(port, embedding)
    yield site
    site.stop()


@pytest.fixture
def alice(embedding: System) -> Iterator[HttpSession]:
    """A session that publishes; Bob has read everything before."""
    assert embedding.call("POST", "/api/user/messages/read-all", token=embedding.get_token("bob"))[0] == 200
    session = HttpSession(embedding, token=embedding.get_token("alice", "admin"))
    yield session
    for broadcast in session.get("/api/admin/broadcasts?filter=active&limit=200").json["items"]:
        session.send("DELETE", f"/api/admin/broadcasts/{broadcast['id']}", {"reason": "The test is over"})
    session.close()


@pytest.fixture
def visit(chromium: Browser, site: EmbeddingSite) -> Iterator[Callable[..., Page]]:
    """`visit()` opens the site's page with a live inbox. Fails on content policy violations and script errors."""
    contexts, problems = [], []

    def open_site(url: str = site.url, *, state: str = "live", **options) -> Page:
        context = chromium.new_context(**{"viewport": DESKTOP_VIEWPORT, "reduced_motion": "reduce"} | options)
        contexts.append(context)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        context.on(
            "console", lambda message: problems.append(message.text) if is_policy_violation(message.text) else None
        )
        page = context.new_page()
        wait_for(lambda: has_loaded(page, url), description="the site")
        if state:
            expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", state)
        return page

    yield open_site
    for context in contexts:
        context.close()
    assert problems == []


def is_policy_violation(text: str) -> bool:
    return "Content Security" in text and "evil.example" not in text  # a test puts that one into the page itself


def has_loaded(page: Page, url: str) -> bool:
    try:
        response = page.goto(url)
        return response is None or response.ok
    except Exception:  # the site is still starting
        return False


def locate_message(page: Page, broadcast_id: int):
    return page.locator(f'broadcast-inbox article[data-id="{broadcast_id}"]')
