"""Frames of the encoder for others to read back, drawn by hypothesis: one JSON line {bytes, want} each."""

import base64
import json

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from broadcast.streams import sse

_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    st.sampled_from("\r\n\0: data\u2028\u0085id"), max_size=30
)


def build_frame_corpus(count: int) -> list[str]:
    """`count` cases of one to three frames each."""
    lines: list[str] = []

    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(st.tuples(st.integers(0, 2**60), _TEXT), min_size=1, max_size=3))
    def add_case(frames: list[tuple[int, str]]) -> None:
        data = b"".join(sse.encode_frame("MESSAGE", text, id=f"e-{seq}") for seq, text in frames)
        expected = [
            {"id": f"e-{seq}", "event": "MESSAGE", "data": text.replace("\r\n", "\n").replace("\r", "\n")}
            for seq, text in frames
        ]
        lines.append(json.dumps({"bytes": base64.b64encode(data).decode(), "want": expected}))

    add_case()
    return lines
