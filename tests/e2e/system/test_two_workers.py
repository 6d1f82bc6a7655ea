"""Two workers, one system: whatever happens at one shows on the streams of the other."""

import secrets
import time
from urllib.parse import quote

import pytest

from tests.support import measurements
from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.system import System

pytestmark = pytest.mark.service


def test_message_published_at_one_worker_arrives_on_streams_of_both(system: System, streams: StreamOpener):
    here, there = wait_for_workers(system)
    alice = HttpSession.connect_to_worker(system, here, token=system.get_token("alice", "admin"))
    near = streams.open_at_worker(here, lambda: streams.open(system, "bob"))
    far = streams.open_at_worker(there, lambda: streams.open(system, "bob"))
    sent = alice.publish(f"From worker {here} {secrets.token_hex(4)}")
    assert alice.worker == here
    assert near.wait_for_message(sent).worker == here
    assert far.wait_for_message(sent).worker == there


def test_role_targeted_message_reaches_bob_and_not_charlie(system: System, streams: StreamOpener, alice: HttpSession):
    bobs = streams.open_at_each_worker(system, lambda: streams.open(system, "bob"))
    charlies = streams.open_at_each_worker(system, lambda: streams.open(system, "charlie"))
    for_ops = alice.publish(f"For ops {secrets.token_hex(4)}", targetType="ROLE", targetIds=["ops"])
    for_all = alice.publish(f"For all {secrets.token_hex(4)}")
    for bob in bobs:
        bob.wait_for_message(for_all)
        assert bob.message_ids == [for_ops, for_all]
    for charlie in charlies:
        charlie.wait_for_message(for_all)  # sent later, so by now the other one would be here
        assert charlie.message_ids == [for_all]


def test_selected_people_get_it_and_nobody_else(system: System, streams: StreamOpener, alice: HttpSession):
    bob, charlie, boss = (streams.open(system, name) for name in ("bob", "charlie", "alice"))
    for_two = alice.publish(f"For two {secrets.token_hex(4)}", targetType="SELECTED", targetIds=["bob", "alice"])
    for_all = alice.publish(f"For all {secrets.token_hex(4)}")
    for stream in (bob, charlie, boss):
        stream.wait_for_message(for_all)
    assert [s.message_ids for s in (bob, charlie, boss)] == [[for_two, for_all], [for_all], [for_two, for_all]]


def test_read_at_one_worker_is_told_to_the_same_person_at_the_other_and_to_nobody_else(
    system: System, streams: StreamOpener, alice: HttpSession
):
    here, there = wait_for_workers(system)
    near = streams.open_at_worker(here, lambda: streams.open(system, "bob"))
    far = streams.open_at_worker(there, lambda: streams.open(system, "bob"))
    charlie = streams.open(system, "charlie")
    sent = alice.publish(f"To read {secrets.token_hex(4)}")
    unread_before = near.frames_of("CONNECTED")[0].json["unread"]
    bob = HttpSession.connect_to_worker(system, here, token=system.get_token("bob"))
    assert bob.send("POST", f"/api/sse/read?messageId={sent}").json == {"id": sent, "unread": unread_before}
    for stream in (near, far):
        receipt = stream.wait_for("READ_RECEIPT", lambda frame: frame.json["ids"] == [sent])
        assert receipt.json["unread"] == unread_before
    last = alice.publish(f"After the receipt {secrets.token_hex(4)}")
    charlie.wait_for_message(last)
    assert charlie.frames_of("READ_RECEIPT") == []


def test_recall_removes_it_on_both_workers(system: System, streams: StreamOpener, alice: HttpSession):
    both = streams.open_at_each_worker(system, lambda: streams.open(system, "bob"))
    sent = alice.publish(f"A mistake {secrets.token_hex(4)}")
    assert alice.send("DELETE", f"/api/admin/broadcasts/{sent}", {"reason": "A mistake"}).status == 200
    for stream in both:
        assert stream.wait_for("MESSAGE_REMOVED").json == {"id": sent, "reason": "CANCELLED"}
        assert stream.message_ids == [sent]


def test_longest_reason_in_any_script_fits_into_the_address(system: System, alice: HttpSession):
    sent = alice.publish(f"Recalled at length {secrets.token_hex(4)}")
    address = f"/api/admin/broadcasts/{sent}?reason={quote('🎈' * 500)}"
    status, answer = system.call("DELETE", address, token=system.get_token("alice", "admin"))
    assert (status, answer["cancelReason"]) == (200, "🎈" * 500)


def test_away_and_back_everything_comes_once_and_in_order(system: System, streams: StreamOpener, alice: HttpSession):
    stream = streams.open(system, "bob")
    first = alice.publish(f"Before {secrets.token_hex(4)}")
    stream.wait_for_message(first)
    stream.close()
    while_away = [alice.publish(f"While away {n} {secrets.token_hex(4)}") for n in range(5)]
    recalled = alice.publish(f"Recalled meanwhile {secrets.token_hex(4)}")
    alice.send("DELETE", f"/api/admin/broadcasts/{recalled}", {"reason": "A mistake"})
    back = streams.resume(system, "bob", stream.cursor)
    assert back.message_ids == while_away
    assert [frame.json["id"] for frame in back.frames_of("MESSAGE_REMOVED")] == [recalled]


def test_both_representations_carry_the_same_message_under_the_same_id(
    system: System, streams: StreamOpener, alice: HttpSession
):
    program, page = streams.open(system, "bob"), streams.open(system, "bob", path="/inbox/stream")
    sent = alice.publish(f"Twice told {secrets.token_hex(4)}", content="**bold** & <b>no markup</b>")
    as_json, as_html = program.wait_for_message(sent), page.wait_for("MESSAGE")
    assert as_json.id == as_html.id
    assert f'id="card-{sent}"' in as_html.data
    assert as_json.json["contentHtml"] in as_html.data


def test_published_message_is_on_the_streams_of_both_workers_at_once(
    system: System, streams: StreamOpener, alice: HttpSession
):
    """Measures; judges no time."""
    both = streams.open_at_each_worker(system, lambda: streams.open(system, "bob"))
    took: list[float] = []
    for n in range(50):
        began = time.monotonic()
        sent = alice.publish(f"Measured {n} {secrets.token_hex(4)}")
        took += [stream.wait_for_message(sent).received_at - began for stream in both]
    assert all(stream.message_ids == both[0].message_ids for stream in both)
    measurements.record_durations("publish (request sent) → frame on a stream, two workers", took)
