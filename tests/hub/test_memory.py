"""What memory counts is what it holds, in whatever order events are added, forgotten, replayed and encoded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.events import Cursor
from broadcast.streams import replay_buffer as module
from broadcast.streams import sse
from broadcast.streams.replay_buffer import MOST_BYTES, Memory, Remembered
from tests.hub.wires import message

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


def held(memory: Memory) -> int:
    return sum(len(frame) for remembered in memory._events for frame in remembered.frames.values())


@given(_STEPS)
def test_bytes_that_are_counted_are_bytes_that_are_held(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_BYTES", 2000)
        memory = Memory(dict.fromkeys(_REPRESENTATIONS, sse.encode_json), most_events=5)
        memory.start(Cursor("e", 0))
        waiting: list[Remembered] = []  # what slow clients have yet to be sent
        for step, value in steps:
            if step == "add":
                memory.frame(memory.add(message(memory.head.seq + 1, text="x" * value)), "json")
            elif step == "replay":
                waiting += memory.recall(max(0, memory.head.seq - value), memory.head.seq) or []
            elif step == "encode" and waiting:
                assert memory.frame(waiting.pop(0), value)
            elif step == "start":
                memory.start(Cursor("e", memory.head.seq), [])
            assert memory._bytes == held(memory)
        memory.add(message(memory.head.seq + 1))
        assert len(memory._events) <= 5


def test_replay_of_what_was_forgotten_meanwhile_does_not_push_out_what_is_new():
    most = 2 * MOST_BYTES // 1_000_000
    memory = Memory({"json": sse.encode_json, "html": lambda event: b"x" * 1_000_000}, most_events=most)
    memory.start(Cursor("e", 0))
    for seq in range(1, most + 1):
        memory.add(message(seq))
    slow = memory.recall(0, most)
    for seq in range(most + 1, 2 * most + 1):
        memory.add(message(seq))
    for remembered in slow:
        memory.frame(remembered, "html")
    memory.add(message(2 * most + 1))
    assert memory.recall(most + 1, 2 * most + 1) is not None
