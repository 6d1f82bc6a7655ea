"""A user signs out, is disabled, or gets other roles: their open streams follow at once, on both workers."""

import secrets
import time

import pytest

from tests.support import measurements
from tests.support.http_session import HttpSession
from tests.support.process_fixtures import StreamOpener, wait_for_workers
from tests.support.system import System, wait_for

pytestmark = pytest.mark.service


def test_sign_out_ends_the_streams_of_that_session_and_of_no_other(
    system: System, streams: StreamOpener, alice: HttpSession
):
    leaving, staying = HttpSession.sign_in(system, "bob"), HttpSession.sign_in(system, "bob")
    left = streams.open_at_each_worker(system, lambda: streams.open_with_session(system, leaving))
    stayed = streams.open_at_each_worker(system, lambda: streams.open_with_session(system, staying))
    began = time.monotonic()
    assert leaving.post("/logout").status == 303
    took = [stream.wait_for("SIGNED_OUT", seconds=5).received_at - began for stream in left]
    sent = alice.publish(f"Not for the signed-out {secrets.token_hex(4)}")
    for stream in stayed:
        stream.wait_for_message(sent)
        assert stream.frames_of("SIGNED_OUT") == []
    assert all(sent not in stream.message_ids for stream in left)
    measurements.record_durations("sign out → SIGNED_OUT on the session's streams", took)


def test_stream_cannot_be_opened_with_a_session_that_was_signed_out(system: System):
    bob = HttpSession.sign_in(system, "bob")
    old_cookie = bob.headers["Cookie"]
    bob.post("/logout")
    bob.headers["Cookie"] = old_cookie
    page = bob.get("/inbox/stream")
    assert page.headers.get_content_type() == "text/event-stream"  # what an InboundSourceStats understands
    assert "event: SIGNED_OUT" in page.text
    assert bob.get("/api/sse/connect").status == 401


def test_disabled_person_is_cut_off_at_both_workers(system: System, streams: StreamOpener, alice: HttpSession):
    dora = system.create_user("ops")
    open_streams = streams.open_at_each_worker(system, lambda: streams.open(system, dora))
    system.run_flask("disable-user", "--username", dora)
    done = time.monotonic()  # the command has answered; it committed a little earlier
    took = [max(0.0, stream.wait_for("SIGNED_OUT", seconds=5).received_at - done) for stream in open_streams]
    sent = alice.publish(f"Not for the disabled {secrets.token_hex(4)}")
    watcher = streams.open(system, "bob")
    watcher.close()
    for stream in open_streams:
        assert sent not in stream.message_ids
    assert system.call("GET", "/api/user/messages", token=system.get_token(dora))[0] == 401
    measurements.record_durations("disable-user answers → SIGNED_OUT", took)


def test_new_role_is_followed_by_open_streams_without_reconnecting(
    system: System, streams: StreamOpener, alice: HttpSession
):
    dora = system.create_user()
    open_streams = streams.open_at_each_worker(system, lambda: streams.open(system, dora))
    title = secrets.token_hex(4)
    before = alice.publish(f"Before {title}", targetType="ROLE", targetIds=["ops"])
    system.run_flask("set-roles", "--username", dora, "--role", "ops")
    for stream in open_streams:
        stream.wait_for("RESET", seconds=5)
    during = alice.publish(f"During {title}", targetType="ROLE", targetIds=["ops"])
    for stream in open_streams:
        stream.wait_for_message(during)
    system.run_flask("set-roles", "--username", dora)
    for stream in open_streams:
        wait_for(lambda stream=stream: len(stream.frames_of("RESET")) == 2, seconds=5, description="a second RESET")
    alice.publish(f"After {title}", targetType="ROLE", targetIds=["ops"])
    for_all = alice.publish(f"For all {title}")
    for stream in open_streams:
        stream.wait_for_message(for_all)
        assert stream.message_ids == [during, for_all]
        assert len(stream.response_headers) == 1
    assert before not in {n for stream in open_streams for n in stream.message_ids}


def test_role_taken_away_while_away_gives_reset_and_not_the_messages_of_that_role(
    system: System, streams: StreamOpener, alice: HttpSession
):
    dora = system.create_user("ops")
    stream = streams.open(system, dora)
    stream.close()
    alice.publish(f"For ops {secrets.token_hex(4)}", targetType="ROLE", targetIds=["ops"])
    system.run_flask("set-roles", "--username", dora)
    for worker in wait_for_workers(system):
        back = streams.open_at_worker(worker, lambda: streams.resume(system, dora, stream.cursor))
        assert [frame.event for frame in back.frames] == ["RESET", "CONNECTED"]
