"""F18: two nodes with clocks five minutes off, one fast, one slow. The database's clock decides what is due."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from broadcast.domain import clock
from tests.support.http_session import HttpSession
from tests.support.nodes import shared_servers
from tests.support.process_fixtures import StreamOpener
from tests.support.system import PROJECT_ROOT, System, wait_for

pytestmark = [pytest.mark.service, pytest.mark.alike]

_MINUTES = {"fast": 5, "slow": -5}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[System]]:
    folder = tmp_path_factory.mktemp("clocks")
    with ExitStack() as stack:
        shared = stack.enter_context(shared_servers(folder))
        made: list[System] = []
        for name, minutes in _MINUTES.items():
            (folder / name).mkdir()
            shift = {
                "PYTHONPATH": str(PROJECT_ROOT / "tests/support/failpoints"),
                "CLOCK_SHIFT_SECONDS": str(60 * minutes),
            }
            node = System(folder / name, WEB_CONCURRENCY="1", **shared, **shift)
            if made:
                stack.push(node)
                node.start()
            else:
                stack.enter_context(node)
            made.append(node)
        yield made


def test_what_is_due_goes_out_once_and_on_time_whatever_the_clocks_of_the_nodes_say(nodes, streams: StreamOpener):
    fast, slow = nodes
    slow._tokens = fast._tokens
    readers = [streams.open(node, "bob") for node in nodes]
    alice, other = (HttpSession(node, token=fast.get_token("alice", "admin")) for node in nodes)
    due = datetime.now(UTC) + timedelta(seconds=4)
    planned = [
        visitor.publish(f"Planned at {n}", scheduledAt=clock.to_rfc3339(due))
        for n, visitor in enumerate((alice, other))
    ]
    for reader in readers:
        for id in planned:
            reader.wait_for_message(id, seconds=30)
        assert time.time() >= due.timestamp(), "it went out by the fast clock"
        assert sorted(reader.message_ids) == planned
    ends = datetime.now(UTC) + timedelta(seconds=4)
    brief = [v.publish(f"Brief at {n}", expiresAt=clock.to_rfc3339(ends)) for n, v in enumerate((alice, other))]
    for reader in readers:
        for id in brief:
            reader.wait_for_message(id)
            reader.wait_for("MESSAGE_REMOVED", lambda frame, id=id: frame.json["id"] == id, seconds=30)
        assert time.time() >= ends.timestamp(), "it ended by the fast clock"
    for visitor in (alice, other):
        status = visitor.get(f"/api/admin/broadcasts/{planned[0]}").json
        off = clock.parse_rfc3339(status["publishedAt"]) - due
        assert timedelta() <= off < timedelta(minutes=1), "the moment is the sender's wrong clock"


def test_late_ones_go_out_on_return_and_those_that_have_ended_meanwhile_do_not(nodes, streams: StreamOpener):
    fast, slow = nodes
    alice = HttpSession(fast, token=fast.get_token("alice", "admin"))
    reader = streams.open(fast, "bob")
    due = datetime.now(UTC) + timedelta(seconds=3)
    late = alice.publish("Late", scheduledAt=clock.to_rfc3339(due))
    ends = clock.to_rfc3339(due + timedelta(seconds=2))
    over = alice.publish("Over by then", scheduledAt=clock.to_rfc3339(due), expiresAt=ends)
    for node in nodes:
        node.kill()
    wait_for(lambda: time.time() > due.timestamp() + 2.5, description="both times to pass, with nobody there")
    for node in (slow, fast):
        node.start()
    reader.wait_for_message(late, seconds=30)
    assert alice.publish("Afterwards") > over
    assert over not in reader.message_ids
    assert reader.message_ids.count(late) == 1
