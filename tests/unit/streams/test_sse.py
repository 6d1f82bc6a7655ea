"""The SSE encoder, read by a third-party parser."""

import pytest
import sseclient
from hypothesis import given
from hypothesis import strategies as st

from broadcast.streams import sse


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_the_data_holds_one_event_comes_back_with_it(data):
    [event] = sseclient.SSEClient(iter([sse.encode_frame("MESSAGE", data, id="e-7")])).events()
    assert (event.id, event.event) == ("e-7", "MESSAGE")
    assert event.data == data.replace("\r\n", "\n").replace("\r", "\n")


@given(st.text(min_size=1))
def test_data_can_never_begin_another_field(data):
    lines = sse.encode_frame("MESSAGE", data).decode().removesuffix("\n\n").split("\n")
    assert lines[0] == "event: MESSAGE"
    assert all(line.startswith("data: ") for line in lines[1:])
    assert not any("\r" in line for line in lines)


@pytest.mark.parametrize("evil", ["a\nb", "a\rb", "a\0b", "\x7f"])
def test_control_characters_in_event_or_id_are_refused(evil):
    with pytest.raises(ValueError):
        sse.encode_frame(evil, "")
    with pytest.raises(ValueError):
        sse.encode_frame("MESSAGE", "", id=evil)


def test_lone_surrogate_does_not_break_the_stream():
    assert b"data: ?" in sse.encode_frame("MESSAGE", "\ud800")


def test_refusal_says_when_to_come_back():
    block = sse.encode_refusal("BUSY").decode()
    assert block.startswith("retry: ")
    assert block.endswith("event: BUSY\ndata: {}\n\n")
