"""Typed text survives in the page: an expired session, a rate limit, a busy server, no network, another tab."""

import re
import secrets

import pytest
from playwright.sync_api import Page, Route, expect

from tests.e2e.browser.conftest import UserBrowser, fill_compose_form, go_to_step
from tests.support.http_session import HttpSession
from tests.support.system import System
from tests.support.users import TEST_USERS

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

PASSWORD = TEST_USERS[0].password
TEXT = "Written with care, and long."


@pytest.fixture
def writer(sit_down, system: System) -> UserBrowser:
    """Somebody who may do everything, whom no other test shares."""
    desk = sit_down(system.create_user("admin"))
    desk.page.goto("/account")
    return desk


def title() -> str:
    return f"Kept {secrets.token_hex(4)}"


def name_of(desk: UserBrowser) -> str:
    return desk.page.locator("main .eyebrow").first.inner_text()


def end_sessions(alice: HttpSession, desk: UserBrowser) -> None:
    """By an administrator elsewhere; the page hears of it by its stream."""
    user_id = desk.page.evaluate("document.body.dataset.user")
    boss = HttpSession.sign_in(alice.system, "alice")
    assert boss.post(f"/console/people/{user_id}/sign-out").status == 303
    boss.close()


def write(page: Page, words: str, people: str = "charlie") -> None:
    """The whole form, without its draft being saved meanwhile."""
    page.route("**/console/drafts", lambda route: route.abort())
    fill_compose_form(page, words, TEXT, usernames=people)


def press(page: Page) -> None:
    go_to_step(page, "review")
    page.locator("#send").click()


def sent(system: System, words: str) -> list[str]:
    listed = system.call(
        "GET", f"/api/admin/broadcasts?q={words.split()[1]}", token=system.get_token("alice", "admin")
    )[1]
    return [item["status"] for item in listed["items"] if item["title"] == words and item["status"] != "DRAFT"]


def expect_unsent(page: Page, words: str) -> None:
    expect(page.locator("[data-problem]")).to_contain_text("Your text is kept")
    expect(page.locator("[data-problem]")).to_be_visible()
    expect(page.locator("#title")).to_have_value(words)
    expect(page.locator("#content")).to_have_value(TEXT)


def sign_in_by(page: Page, username: str) -> None:
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


FAILURES = {
    "no network": lambda route: route.abort(),
    "too often": lambda route: route.fulfill(status=429, body="no"),
    "busy": lambda route: route.fulfill(status=503, content_type="text/html", body="<h1>no</h1>"),
    "bad gateway": lambda route: route.fulfill(status=502, content_type="text/html", body="<main id=main>nginx</main>"),
    "not known": lambda route: route.fulfill(status=504, body=""),
    "too large": lambda route: route.fulfill(status=413, body=""),
    "conflict": lambda route: route.fulfill(status=409, content_type="application/problem+json", body="{}"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_refused_send_leaves_the_text_and_the_button_and_sends_once(writer: UserBrowser, system: System, failure: str):
    page, words = writer.page, title()
    write(page, words)
    page.route("**/console/broadcasts", FAILURES[failure])
    press(page)
    expect_unsent(page, words)
    page.unroute("**/console/broadcasts")
    page.locator("#send").click()
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    assert len(sent(system, words)) == 1


def test_answer_that_got_lost_is_asked_for_again_and_nothing_is_sent_twice(writer: UserBrowser, system: System):
    page, words = writer.page, title()
    write(page, words)

    def lose(route: Route) -> None:
        route.fetch(max_redirects=0)
        route.abort()

    page.route("**/console/broadcasts", lose)
    press(page)
    expect_unsent(page, words)
    assert len(sent(system, words)) == 1
    page.unroute("**/console/broadcasts")
    page.locator("#send").click()
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    assert len(sent(system, words)) == 1


def test_page_that_is_told_of_the_end_of_its_session_is_not_left_and_signing_in_comes_back_to_the_text(
    writer: UserBrowser, system: System, alice: HttpSession
):
    page, words = writer.page, title()
    username = name_of(writer)
    write(page, words)
    writer.expect_live()
    end_sessions(alice, writer)
    expect_unsent(page, words)
    expect(page).to_have_url(re.compile("/console/broadcasts/new$"))
    page.locator("[data-problem]").get_by_role("link", name="Sign in").click()
    sign_in_by(page, username)
    expect(page).to_have_url(re.compile("/console/broadcasts/new"))
    expect(page.locator("#title")).to_have_value(words)
    expect(page.locator("#content")).to_have_value(TEXT)
    expect(page.locator("#people")).to_have_value("charlie")
    press(page)
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    assert len(sent(system, words)) == 1


def test_text_kept_over_a_sign_in_is_not_shown_to_somebody_else(writer: UserBrowser):
    page, words = writer.page, title()
    write(page, words)
    writer.context.clear_cookies()
    press(page)
    expect_unsent(page, words)
    page.locator("[data-problem]").get_by_role("link", name="Sign in").click()
    sign_in_by(page, "alice")
    expect(page.locator("#title")).to_have_value("")
    page.wait_for_function("!Object.keys(sessionStorage).some((name) => name.startsWith('form '))")


def test_page_of_an_earlier_session_sends_after_a_sign_in_in_another_tab(writer: UserBrowser, system: System):
    page, words, username = writer.page, title(), name_of(writer)
    write(page, words)
    other = writer.context.new_page()
    other.goto("/account")
    writer.context.clear_cookies()
    other.goto("/login")
    sign_in_by(other, username)
    expect(other).to_have_url(re.compile("/inbox"))
    press(page)
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    assert len(sent(system, words)) == 1


def test_somebody_else_who_signed_in_in_another_tab_sends_nothing_of_it(writer: UserBrowser, system: System):
    page, words = writer.page, title()
    write(page, words)
    other = writer.context.new_page()
    writer.context.clear_cookies()
    other.goto("/login")
    sign_in_by(other, "alice")
    expect(other).to_have_url(re.compile("/inbox"))
    press(page)
    expect_unsent(page, words)
    assert sent(system, words) == []


def test_part_of_the_page_that_is_refused_for_want_of_a_session_leaves_it_alone(writer: UserBrowser):
    page, words = writer.page, title()
    write(page, words)
    writer.context.clear_cookies()
    page.locator("label[for=target-all]").click()  # counts the audience anew
    expect_unsent(page, words)
    expect(page).to_have_url(re.compile("/console/broadcasts/new$"))


def test_mistakes_are_shown_in_the_page_and_the_form_goes_on(writer: UserBrowser, system: System):
    page, words = writer.page, title()
    write(page, words, people="nobody-there")
    press(page)
    expect(page.locator("#errors")).to_be_focused()
    expect(page.locator("#title")).to_have_value(words)
    page.locator("#people").fill("charlie")
    go_to_step(page, "when")
    expect(page.locator("#when-later")).to_be_attached()
    press(page)
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    assert len(sent(system, words)) == 1


def test_edit_of_a_live_message_survives_and_a_conflict_shows_both(writer: UserBrowser, alice: HttpSession):
    page = writer.page
    broadcast_id = alice.publish(title(), targetType="SELECTED", targetIds=["charlie"])
    page.goto(f"/console/broadcasts/{broadcast_id}/edit")
    page.locator("#content").fill(TEXT)
    page.route("**/edit", lambda route: route.abort())
    page.locator("#send").click()
    expect(page.locator("[data-problem]")).to_be_visible()
    page.unroute("**/edit")
    stored = alice.get(f"/api/admin/broadcasts/{broadcast_id}")
    theirs = {"content": "Theirs"}
    alice.send("PATCH", f"/api/admin/broadcasts/{broadcast_id}", theirs, **{"If-Match": stored.headers["ETag"]})
    page.locator("#send").click()
    expect(page.locator("main")).to_contain_text("This broadcast changed while you were editing it")
    page.get_by_role("button", name="Overwrite with mine").click()
    expect(page.locator("#content")).to_have_value(TEXT)


@pytest.mark.parametrize("place", ["template", "reason", "person"])
def test_other_forms_keep_their_text_in_the_page_and_over_a_sign_in(
    writer: UserBrowser, alice: HttpSession, place: str
):
    page, username = writer.page, name_of(writer)
    broadcast_id = alice.publish(title(), targetType="SELECTED", targetIds=["charlie"])
    address, field, button = {
        "template": ("/console/library/templates/new", "#content", "Save template"),
        "reason": (f"/console/broadcasts/{broadcast_id}", "#reason", "Recall from"),
        "person": ("/console/people/new", "#name", "Add user"),
    }[place]
    page.goto(address)
    if place == "reason":
        page.get_by_text("Recall this broadcast").click()
    page.locator(field).fill(TEXT)
    writer.context.clear_cookies()
    page.get_by_role("button", name=button).click()
    expect(page.locator("[data-problem]")).to_contain_text("You are signed out")
    expect(page.locator(field)).to_have_value(TEXT)
    page.locator("[data-problem]").get_by_role("link", name="Sign in").click()
    sign_in_by(page, username)
    expect(page.locator(field)).to_be_visible()
    expect(page.locator(field)).to_have_value(TEXT)
    expect(page.locator("[data-problem]")).to_contain_text("is restored")


def test_text_comes_back_after_a_sign_in_without_scripts(sit_down, system: System):
    username, words = system.create_user("admin"), title()
    desk = sit_down(username, java_script_enabled=False)
    page = desk.page
    fill_compose_form(page, words, TEXT, usernames="charlie")
    system.run_flask("set-roles", "--username", username, "--role", "admin")
    token = system.get_token("alice", "admin")
    system.call("POST", "/api/admin/broadcasts", token=token, body={
        "title": "Sign in again", "content": "x", "targetType": "SELECTED", "targetIds": [username], "closeSessions": True,
    })  # fmt: skip
    page.locator("#send").click()
    expect(page.locator(".notice")).to_contain_text("Your text is kept")
    sign_in_by(page, username)
    page.get_by_role("button", name="Back to your form").click()
    expect(page.locator("#title")).to_have_value(words)
    expect(page.locator("#content")).to_have_value(TEXT)
    page.locator("#send").click()
    page.wait_for_url(re.compile(r"/console/broadcasts/\d+$"))
    assert len(sent(system, words)) == 1
