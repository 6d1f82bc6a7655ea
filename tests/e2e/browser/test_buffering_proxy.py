"""The console's health page behind a proxy that buffers streams: it says so, and links to the documentation."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.browser.conftest import freeze_performance_clock
from tests.support.http_session import HttpSession
from tests.support.ports import find_free_port
from tests.support.servers import ServerProcess, find_program_or_skip
from tests.support.system import System

pytestmark = [pytest.mark.e2e, pytest.mark.alike]

# what is wrong here is what deploy/nginx.conf does not do: it compresses a stream, and does not hear that it must not buffer
_CONF = """
daemon off; pid nginx.pid; error_log stderr; events {{}}
http {{
    access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    gzip on; gzip_proxied any; gzip_min_length 0; gzip_types text/event-stream;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{target};
            proxy_http_version 1.1;
            proxy_buffering on;
            proxy_ignore_headers X-Accel-Buffering;
        }}
    }}
}}
"""


@pytest.fixture
def behind(system: System, tmp_path: Path) -> Iterator[System]:
    """The shared system, as people reach it through that nginx."""
    port, conf = find_free_port(), tmp_path / "nginx.conf"
    conf.write_text(_CONF.format(port=port, target=system.port))
    command = [find_program_or_skip("nginx", "nginx"), "-p", tmp_path, "-c", conf, "-e", "stderr"]
    server = ServerProcess(command, port, tmp_path / "output.txt")
    server.start()
    yield system.with_url(f"http://127.0.0.1:{port}")
    server.stop()


def test_page_says_that_something_holds_streams_back(system: System, behind: System, sit_down):
    desk = sit_down("alice", at=behind, signed_in_as=HttpSession.sign_in(system, "alice"))
    desk.page.goto("/console/health")
    result = desk.page.locator("#stream-result[data-done]")
    expect(result).to_contain_text("a proxy may be buffering streams")


def test_page_says_that_a_stream_comes_through_when_nothing_is_in_front(system: System, sit_down):
    desk = sit_down("alice")
    freeze_performance_clock(desk.page)
    desk.page.goto("/console/health")
    expect(desk.page.locator("#stream-result[data-done]")).to_contain_text("Streams arrive without delay")
