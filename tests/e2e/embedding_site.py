"""A site that embeds inboxes, and people who visit it: fixtures for the tests of the embedded inbox."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.databases import DATABASE_URL, SECOND_REDIS_URL, database_of_its_own
from tests.e2e.conftest import WIDE
from tests.ports import free_port
from tests.system import TOP, System, wait_for
from tests.visitor import Visitor


class Site:
    """`docs/embed/server.py` on a port of its own; `url` is its address under the name localhost: another site, not only
    another origin."""

    def __init__(self, port: int, system: System):
        self.url = f"http://localhost:{port}"
        key = system.flask("create-token", "--user", "alice", "--scope", "embed", "--label", "Intranet")
        environ = os.environ | {"BROADCAST_URL": system.url, "BROADCAST_TOKEN": key}
        self._process = subprocess.Popen(
            [sys.executable, TOP / "docs/embed/server.py", str(port)], env=environ, stderr=subprocess.DEVNULL
        )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def embedding(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that allows one site, and `http://elsewhere.example`, which nobody serves."""
    origins = f"http://localhost:{port},http://elsewhere.example"
    with database_of_its_own(DATABASE_URL) as url:
        folder = tmp_path_factory.mktemp("embedding")
        with System(folder, database_url=url, redis_url=SECOND_REDIS_URL, EMBED_ORIGINS=origins) as running:
            yield running


@pytest.fixture(scope="module")
def site(embedding: System, port: int) -> Iterator[Site]:
    site = Site(port, embedding)
    yield site
    site.stop()


@pytest.fixture
def alice(embedding: System) -> Iterator[Visitor]:
    """Publishes, after Bob has read everything."""
    assert embedding.call("POST", "/api/user/messages/read-all", token=embedding.token("bob"))[0] == 200
    visitor = Visitor(embedding, token=embedding.token("alice", "admin"))
    yield visitor
    for broadcast in visitor.get("/api/admin/broadcasts?filter=active&limit=200").json["items"]:
        visitor.send("DELETE", f"/api/admin/broadcasts/{broadcast['id']}", {"reason": "The test is over"})
    visitor.close()


@pytest.fixture
def visit(chromium: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """`visit()`: the site's page, with its inbox live. Nothing may break the page's content policy, or throw."""
    contexts, problems = [], []

    def go(url: str = site.url, *, state: str = "live", **options) -> Page:
        context = chromium.new_context(**{"viewport": WIDE, "reduced_motion": "reduce"} | options)
        contexts.append(context)
        context.on("weberror", lambda error: problems.append(str(error.error)))
        context.on("console", lambda told: problems.append(told.text) if is_violation(told.text) else None)
        page = context.new_page()
        wait_for(lambda: has_loaded(page, url), what="the site")
        if state:
            expect(page.locator("broadcast-inbox")).to_have_attribute("data-state", state)
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []


def is_violation(text: str) -> bool:
    return "Content Security" in text and "evil.example" not in text  # which a test puts into the page itself


def has_loaded(page: Page, url: str) -> bool:
    try:
        answer = page.goto(url)
        return answer is None or answer.ok
    except Exception:  # the site is only starting
        return False


def article(page: Page, broadcast_id: int):
    return page.locator(f'broadcast-inbox article[data-id="{broadcast_id}"]')
