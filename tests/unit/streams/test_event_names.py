"""Scripts and documents name the events that the server sends."""

import re
from pathlib import Path

import pytest

from broadcast.domain.events import CLIENT_EVENT_TYPES
from broadcast.streams.sse import UnloggedEvent

TOP = Path(__file__).resolve().parents[3]


def test_scripts_listen_to_every_event():
    script = (TOP / "static/shared/stream_events.js").read_text()
    lists = {name: set(re.findall(r"\w+", names)) for name, names in re.findall(r"static (\w+) = \[(.*?)\]", script)}
    assert lists == {"LOGGED": CLIENT_EVENT_TYPES, "UNLOGGED": set(UnloggedEvent)}


@pytest.mark.parametrize("script", ["inbox/live.js", "embed/inbox.js"])
def test_both_inboxes_handle_every_logged_event(script):
    text = (TOP / "static" / script).read_text()
    assert [name for name in CLIENT_EVENT_TYPES if not re.search(rf"\b{name}\b", text)] == []


def test_every_event_is_documented():
    section = (TOP / "docs/architecture.md").read_text().partition("\n## Events on the wire\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == CLIENT_EVENT_TYPES | set(UnloggedEvent)
