"""Two browsers behind nginx, each on its own node; one node dies, and neither user misses anything."""

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import UserBrowser, freeze_performance_clock
from tests.support.http_session import HttpSession
from tests.support.nodes import Nodes, two_nodes  # noqa: F401 - a fixture

pytestmark = [pytest.mark.e2e, pytest.mark.alike, pytest.mark.service]


def test_page_whose_node_dies_goes_on_at_the_other(two_nodes: Nodes, sit_down):  # noqa: F811
    first, second = two_nodes.first.get_worker_pids(), two_nodes.second.get_worker_pids()
    desk_of_first = _sit_at(first, two_nodes, sit_down)
    desk_of_second = _sit_at(second, two_nodes, sit_down)
    alice = HttpSession(two_nodes.via_proxy, token=two_nodes.via_proxy.get_token("alice", "admin"))
    _expect_card([desk_of_first, desk_of_second], alice, "While both live")
    two_nodes.first.kill()
    at_second = HttpSession(two_nodes.second, token=two_nodes.second.get_token("alice", "admin"))
    _expect_card([desk_of_first, desk_of_second], at_second, "While one is dead")
    assert desk_of_first.worker in second


def test_health_page_sees_the_stream_come_through_nginx_over_http_2(two_nodes: Nodes, sit_down):  # noqa: F811
    desk = sit_down("alice", at=two_nodes.via_proxy, ignore_https_errors=True)
    freeze_performance_clock(desk.page)
    desk.page.goto("/console/health")
    result = desk.page.locator("#stream-result[data-done]")
    expect(result).to_contain_text("Streams arrive without delay")
    expect(result).not_to_contain_text("HTTP/1.1")


def _sit_at(workers: list[int], nodes: Nodes, sit_down) -> UserBrowser:
    """Bob in a browser whose stream that node serves; nginx chooses, so it may take a few."""
    for _ in range(6):
        desk: UserBrowser = sit_down("bob", at=nodes.via_proxy, ignore_https_errors=True).open_inbox()
        if desk.worker in workers:
            return desk
    raise AssertionError("six browsers, and none was served by that node")


def _expect_card(desks: list[UserBrowser], alice: HttpSession, title: str) -> None:
    sent = alice.publish(title)
    for desk in desks:
        expect(desk.card(sent)).to_be_visible()
