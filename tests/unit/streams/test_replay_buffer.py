"""The replay buffer's memory count equals its contents, in any order of adding, evicting, replaying and encoding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.events import Cursor
from broadcast.streams import replay_buffer as module
from broadcast.streams import sse
from broadcast.streams.replay_buffer import MAX_BYTES, BufferedEvent, ReplayBuffer
from tests.support.hub_clients import make_message_event

_REPRESENTATIONS = ("json", "html")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 300)),
        st.tuples(st.just("replay"), st.integers(0, 40)),
        st.tuples(st.just("encode"), st.sampled_from(_REPRESENTATIONS)),
        st.tuples(st.just("start"), st.integers(0, 3)),
    ),
    max_size=60,
)


def held(memory: ReplayBuffer) -> int:
    return sum(len(frame) for remembered in memory._events for frame in remembered.frames.values())


@given(_STEPS)
def test_bytes_that_are_counted_are_bytes_that_are_held(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_BYTES", 2000)
        memory = ReplayBuffer(dict.fromkeys(_REPRESENTATIONS, sse.encode_event_json), max_events=5)
        memory.start(Cursor("e", 0))
        waiting: list[BufferedEvent] = []  # what slow clients have yet to be sent
        for step, value in steps:
            if step == "add":
                memory.get_frame(memory.append(make_message_event(memory.head.seq + 1, text="x" * value)), "json")
            elif step == "replay":
                waiting += memory.slice(max(0, memory.head.seq - value), memory.head.seq) or []
            elif step == "encode" and waiting:
                assert memory.get_frame(waiting.pop(0), value)
            elif step == "start":
                memory.start(Cursor("e", memory.head.seq), [])
            assert memory._bytes == held(memory)
        memory.append(make_message_event(memory.head.seq + 1))
        assert len(memory._events) <= 5


def test_replay_of_what_was_forgotten_meanwhile_does_not_push_out_what_is_new():
    most = 2 * MAX_BYTES // 1_000_000
    memory = ReplayBuffer({"json": sse.encode_event_json, "html": lambda event: b"x" * 1_000_000}, max_events=most)
    memory.start(Cursor("e", 0))
    for seq in range(1, most + 1):
        memory.append(make_message_event(seq))
    slow = memory.slice(0, most)
    for seq in range(most + 1, 2 * most + 1):
        memory.append(make_message_event(seq))
    for remembered in slow:
        memory.get_frame(remembered, "html")
    memory.append(make_message_event(2 * most + 1))
    assert memory.slice(most + 1, 2 * most + 1) is not None
