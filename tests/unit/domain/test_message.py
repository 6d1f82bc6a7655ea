"""Every rule of what may be published; the result is always a Draft or Invalid."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.base.errors import Invalid
from broadcast.domain.message import MAX_CONTENT_BYTES, Draft, Link, Priority, Target, TargetType, parse_draft
from tests.support.builders import build_message, build_role_message, build_user_message

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)


def draft(raw: Any) -> Draft:
    return parse_draft(raw, now=NOW)


def problems(raw: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        draft(raw)
    fields = caught.value.fields
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in fields.values()), fields
    return fields


def test_whole_message_is_read():
    raw = build_role_message(
        "Ops", "ops", "Sales", title="  Two   words ", content="\n\nLine 1\r\nLine 2\rLine 3\n", priority="URGENT",
        category=" News ", scheduledAt="2026-11-05T10:00:00+02:00", expiresAt="2026-11-06T00:00:00Z", requiresAck=True,
        ackDueAt="2026-11-05T12:00:00Z", actions=[{"label": " Go ", "url": "https://example.com/x?y=1"}], draft=True,
    )  # fmt: skip
    read = draft(raw)
    assert read.title == "Two words"
    assert read.content == "Line 1\nLine 2\nLine 3"
    assert read.target == Target(TargetType.ROLE, ("ops", "sales"))
    assert read.priority is Priority.URGENT
    assert read.category == "News"
    assert read.scheduled_at == datetime(2026, 11, 5, 8, 0, tzinfo=UTC)
    assert read.expires_at == datetime(2026, 11, 6, tzinfo=UTC)
    assert (read.requires_ack, read.keep_as_draft) == (True, True)
    assert read.ack_due_at == datetime(2026, 11, 5, 12, 0, tzinfo=UTC)
    assert read.actions == (Link("Go", "https://example.com/x?y=1"),)


def test_least_message_gets_calm_defaults():
    read = draft(build_message())
    assert (read.priority, read.category, read.scheduled_at, read.expires_at) == (Priority.NORMAL, None, None, None)
    assert (read.requires_ack, read.keep_as_draft, read.actions) == (False, False, ())


def test_all_problems_are_told_at_once():
    told = problems({"title": "", "content": "", "targetType": "ROLE", "priority": "LOUD", "expiresAt": "soon"})
    assert set(told) == {"title", "content", "targetIds", "priority", "expiresAt"}


@pytest.mark.parametrize("raw", [None, [], "text", 1, True, [build_message()]])
def test_anything_but_an_object_is_refused(raw):
    assert set(problems(raw)) == {"body"}


def test_unknown_field_is_refused_not_ignored():
    assert set(problems(build_message(senderName="Mallory", isAdmin=True))) == {"senderName", "isAdmin"}


# ---- title


@pytest.mark.parametrize("title", ["x" * 200, "😀" * 200, "x" + " " * 500 + "y", "a\u2028b"])
def test_title_of_200_characters_fits(title):
    assert 0 < len(draft(build_message(title=title)).title) <= 200


@pytest.mark.parametrize(
    "title", ["", "   ", "\n\t", "x" * 201, "😀" * 201, "a\0b", "\x1b[31mred", "\ud800", 7, True, ["t"], {}]
)
def test_title_that_is_none_is_refused(title):
    assert set(problems(build_message(title=title))) == {"title"}


@pytest.mark.parametrize(
    "title",
    ["👩‍💻 deploys", "می‌خواهم", "مرحبا \u200fabc", "🫨 unicode 15", "soft\u00adhyphen", "no\u00a0break"],
    ids=[
        "joined emoji",
        "Persian with its joiner",
        "right to left mark",
        "newer emoji",
        "soft hyphen",
        "no-break space",
    ],
)
def test_title_in_any_script_is_accepted(title):
    assert draft(build_message(title=title)).title == " ".join(title.split())


@pytest.mark.parametrize("mark", ["\u202e", "\u202d"])
def test_title_cannot_turn_the_reading_direction_over(mark):
    """A right-to-left override would show another text than was written."""
    assert set(problems(build_message(title=f"invoice {mark}gpj.exe"))) == {"title"}


@pytest.mark.parametrize("field", ["title", "content", "targetType"])
def test_missing_field_is_named(field):
    assert field in problems(build_message(**{field: None}))


# ---- content


def test_content_is_measured_in_bytes_not_characters():
    assert draft(build_message(content="ü" * (MAX_CONTENT_BYTES // 2)))
    assert set(problems(build_message(content="ü" * (MAX_CONTENT_BYTES // 2) + "x"))) == {"content"}
    assert draft(build_message(content="x" * MAX_CONTENT_BYTES))
    assert set(problems(build_message(content="x" * (MAX_CONTENT_BYTES + 1)))) == {"content"}


@pytest.mark.parametrize("content", ["", " \n ", "a\0b", "a\udfffb", 5, False, [], {"a": 1}])
def test_content_that_is_none_is_refused(content):
    assert set(problems(build_message(content=content))) == {"content"}


def test_indented_code_keeps_its_indentation():
    assert draft(build_message(content="    code\n")).content == "    code"


# ---- enumerations, flags, category


@pytest.mark.parametrize("priority", ["high", "", 1, True, ["HIGH"], {"a": 1}, "HIGH "])
def test_unknown_priority_is_refused(priority):
    assert "LOW, NORMAL, HIGH, URGENT" in problems(build_message(priority=priority))["priority"]


@pytest.mark.parametrize("kind", ["all", "EVERYONE", "", 0, False, [], {}])
def test_unknown_target_type_is_refused_not_taken_for_all(kind):
    assert set(problems(build_message(targetType=kind))) == {"targetType"}


@pytest.mark.parametrize("field", ["requiresAck", "draft"])
@pytest.mark.parametrize("value", ["true", 1, 0, "", [], "false"])
def test_flag_is_true_or_false_only(field, value):
    assert set(problems(build_message(**{field: value}))) == {field}


def test_category_has_at_most_40_characters():
    assert draft(build_message(category="x" * 40)).category == "x" * 40
    assert draft(build_message(category="  ")).category is None
    for wrong in ("x" * 41, "a\x07b", 3, ["News"]):
        assert set(problems(build_message(category=wrong))) == {"category"}, wrong


# ---- audience


@pytest.mark.parametrize("kind", ["ROLE", "SELECTED"])
@pytest.mark.parametrize("ids", [None, []])
def test_empty_audience_is_refused(kind, ids):
    assert set(problems(build_message(targetType=kind, targetIds=ids))) == {"targetIds"}


def test_names_beside_everyone_are_refused():
    """Somebody who names people does not mean everybody."""
    assert set(problems(build_message(targetType="ALL", targetIds=["ops"]))) == {"targetIds"}


@pytest.mark.parametrize(
    "ids",
    ["ops", {"ops": 1}, 5, True, [True], [False], [None], [1.5], [""], ["  "], ["x" * 65], [0], [-1], [2**63],
     [10**400], [[]], [{}], [["ops"]], ["a\0"], ["\ud800"], [float("nan")]],
)  # fmt: skip
def test_target_that_is_no_name_is_refused(ids):
    assert set(problems(build_message(targetType="SELECTED", targetIds=ids))) == {"targetIds"}


def test_names_are_compared_without_case_and_once():
    assert draft(build_user_message("Bob", " bob ", "BOB")).target.names == ("bob",)
    assert draft(build_message(targetType="SELECTED", targetIds=[7, 7, 2**63 - 1])).target.names == (7, 2**63 - 1)


def test_too_many_names_are_refused_with_the_way_out():
    told = problems(build_message(targetType="SELECTED", targetIds=list(range(1, 50_002))))
    assert "role" in told["targetIds"]


# ---- times


@pytest.mark.parametrize(
    "time",
    ["2026-11-05T10:00:00", "2026-11-05", "tomorrow", "", 1762336800, True, "2026-13-01T00:00:00Z", "9999-12-31T23:59:59Z",
     "1999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2026-11-05T10:00:00Z\0", "\ud800", [], {}],
)  # fmt: skip
@pytest.mark.parametrize("field", ["scheduledAt", "expiresAt"])
def test_time_without_zone_or_sense_is_refused(field, time):
    assert set(problems(build_message(**{field: time}))) == {field}


def test_start_in_the_past_is_refused_but_a_slow_form_is_not():
    assert set(problems(build_message(scheduledAt="2026-11-04T09:58:59Z"))) == {"scheduledAt"}
    assert draft(build_message(scheduledAt="2026-11-04T09:59:30Z"))


@pytest.mark.parametrize(
    ("scheduled", "expires", "fits"),
    [
        (None, "2026-11-04T10:00:00Z", False),
        (None, "2026-11-04T10:00:01Z", True),
        ("2026-11-05T10:00:00Z", "2026-11-05T10:00:00Z", False),
        ("2026-11-05T10:00:00Z", "2026-11-05T09:00:00Z", False),
        ("2026-11-05T10:00:00Z", "2026-11-05T10:00:01Z", True),
    ],
)
def test_expiry_comes_after_the_start(scheduled, expires, fits):
    raw = build_message(scheduledAt=scheduled, expiresAt=expires)
    if fits:
        assert draft(raw)
    else:
        assert set(problems(raw)) == {"expiresAt"}


def test_due_date_needs_an_acknowledgement_to_be_due():
    later = (NOW + timedelta(days=1)).isoformat()
    assert set(problems(build_message(ackDueAt=later))) == {"ackDueAt"}
    assert set(problems(build_message(ackDueAt=NOW.isoformat(), requiresAck=True))) == {"ackDueAt"}
    assert draft(build_message(ackDueAt=later, requiresAck=True)).ack_due_at


# ---- links


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "JaVaScRiPt:alert(1)", " \x01javascript:alert(1)", "data:text/html,x", "//example.com", "/inbox",
     "https://", "http:///x", "https:example.com", "ftp://example.com", "mailto:a@example.com", "vbscript:x", "http://[::1",
     "https://example.com/" + "x" * 2000, "https://exa\nmple.com", "java\tscript:alert(1)", "", 5, None, [], "https://\ud800"],
)  # fmt: skip
def test_link_that_is_no_web_address_is_refused(url):
    assert set(problems(build_message(actions=[{"label": "Go", "url": url}]))) == {"actions"}


@pytest.mark.parametrize(
    "actions",
    [{}, "x", 1, True, [1], [None], [[]], [{}], [{"label": "Go"}], [{"url": "https://a.example"}],
     [{"label": "", "url": "https://a.example"}], [{"label": "x" * 41, "url": "https://a.example"}],
     [{"label": 1, "url": "https://a.example"}], [{"label": "Go", "url": "https://a.example", "class": "x"}],
     [{"label": "Go", "url": "https://a.example"}] * 3],
)  # fmt: skip
def test_links_of_any_other_shape_are_refused(actions):
    assert set(problems(build_message(actions=actions))) == {"actions"}


# ---- whatever else comes

_names = st.sampled_from([
    "title", "content", "targetType", "targetIds", "priority", "category", "scheduledAt", "expiresAt", "requiresAck",
    "ackDueAt", "actions", "draft", "x",
])  # fmt: skip
_text = st.text(st.characters(), max_size=60)
_likely = st.sampled_from(["ALL", "ROLE", "SELECTED", "HIGH", "2026-11-05T10:00:00Z", "https://example.com", "ops", ""])
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | _text
    | _likely
    | st.sampled_from([2**63, -(2**63), 10**400])
)
_junk = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text | _names, inner, max_size=3)
)


@given(
    raw=_junk
    | st.dictionaries(_names | _text, _junk)
    | st.dictionaries(_names, _junk).map(lambda more: build_message() | more)
)
def test_whatever_comes_is_a_draft_or_invalid_with_sentences(raw):
    try:
        read, told = draft(raw), None
    except Invalid as invalid:
        read, told = None, invalid.fields
    assert isinstance(read, Draft) or told
    assert all(isinstance(sentence, str) and sentence.endswith(".") for sentence in (told or {}).values())
    json.dumps(told)


@given(title=st.text(min_size=1), content=st.text(min_size=1))
def test_accepted_text_can_be_stored_and_stays_itself(title, content):
    try:
        read = draft(build_message(title=title, content=content))
    except Invalid:
        return
    assert "\0" not in read.title + read.content
    (read.title + read.content).encode()
    again = draft(build_message(title=read.title, content=read.content))
    assert (again.title, again.content) == (read.title, read.content)
