"""Rules of sources: strict parsing, defaults for events, wording, and limits on what events may ask for."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.config.settings import SettingsError
from broadcast.domain.event_source import EventOwner
from broadcast.domain.inbound import PublishCommand, Rejection
from broadcast.domain.message import Priority, Target, TargetType
from broadcast.ingest import contract, rules, rules_file
from tests.support.builders import build_message, build_role_message, build_user_message
from tests.support.inbound_records import SOURCE, build_cancel_event, build_cloud_event, build_structured_record

NOW = datetime(2026, 11, 4, 10, 0, tzinfo=UTC)

GRID = """
[[rule]]
source = "https://grid.example.com/*"
sender = "Grid control"
audiences = ["role:ops"]
priorities = ["LOW", "NORMAL"]
defaults = { targetType = "ROLE", targetIds = ["ops"], category = "Incident" }
"""
DEPLOY = """
[[rule]]
type = "com.example.deploy.*"
title = "{{ data.service }} is live"
content = "By {{ data.by }}."
defaults = { targetType = "ALL" }
draft = true
"""


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str, **options) -> rules.Rules:
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return rules_file.load_rules(path, **options)

    return load


def read(event, held):
    return contract.read_command(build_structured_record(event), now=NOW, rules=held)


def test_what_an_event_leaves_out_its_rule_fills_in(load):
    reading = read(build_cloud_event(data={"title": "Lifts", "content": "x"}), load(GRID))
    assert isinstance(reading, PublishCommand)
    assert reading.draft.target == Target(TargetType.ROLE, ("ops",))
    assert (reading.draft.category, reading.sender_name) == ("Incident", "Grid control")


def test_what_an_event_says_goes_before_the_default(load):
    reading = read(build_cloud_event(data=build_role_message("ops", category="News")), load(GRID))
    assert reading.draft.category == "News"


@pytest.mark.parametrize(
    "data",
    [
        build_message(),
        build_role_message("ops", "sales"),
        build_user_message("bob"),
        build_role_message("ops", priority="URGENT"),
    ],
    ids=["everyone", "another role", "people", "a priority"],
)
def test_what_a_source_may_not_use_is_refused_with_its_name(load, data):
    reading = read(build_cloud_event(data=data), load(GRID))
    assert isinstance(reading, Rejection)
    assert (reading.code, reading.source) == ("not-allowed", SOURCE)
    assert "may not" in reading.reason


def test_what_no_rule_is_for_is_refused_unless_a_setting_lets_it_through(load):
    event = build_cloud_event(source="https://elsewhere", data=build_message(priority="URGENT"))
    reading = read(event, load(GRID))
    assert (reading.code, reading.source) == ("no-rule", "https://elsewhere/")
    assert "topic:ext.events" in reading.reason
    assert read(event, load(GRID, should_allow_others=True)).draft.priority is Priority.URGENT
    assert read(event, ()).draft.priority is Priority.URGENT


@pytest.mark.parametrize(
    "source",
    ["https://GRID.example.com/a", "HTTPS://grid.example.com/a", "https://grid.example.com:443/a",
     "https://grid.example.com./a", "https://x/../grid.example.com/a", "https://gr%69d.example.com/%61"],
)  # fmt: skip
def test_another_spelling_of_a_source_is_no_way_around_its_rule(load, source):
    reading = read(build_cloud_event(source=source, data=build_message(priority="URGENT")), load(GRID))
    assert reading.code in ("not-allowed", "no-rule")


BOUND = """
[[rule]]
source = ["https://grid.example.com/*", "urn:grid:*"]
from = ["account:grid-bot", "topic:grid.*"]
sender = "Grid control"

[[rule]]
source = "*"
priorities = ["LOW", "NORMAL"]
"""


@pytest.mark.parametrize(
    ("owner", "source", "is_sent"),
    [
        (EventOwner.for_account(7, "grid-bot"), SOURCE, True), (EventOwner.for_topic("grid.events"), "URN:GRID:1", True),
        (EventOwner.for_account(8, "meter-bot"), SOURCE, False), (EventOwner.for_account(8, "meter-bot"),
        "https://GRID.example.com./x", False),
        (EventOwner.for_topic("meter.events"), "urn:GRID:2", False), (EventOwner.for_account(8, "meter-bot"),
        "https://meter.example.com", True),
        (EventOwner.for_account(9, "grid-bot-2"), SOURCE, False),
    ],
)  # fmt: skip
def test_source_that_is_kept_for_some_is_not_let_through_by_a_rule_for_everybody(load, owner, source, is_sent):
    for held in (load(BOUND), load(BOUND, should_allow_others=True)):
        reading = contract.read_command(
            build_structured_record(build_cloud_event(source=source)), now=NOW, rules=held, owner=owner
        )
        assert isinstance(reading, PublishCommand) is is_sent
        if not is_sent:
            assert reading.code == "no-rule"
            assert owner.name in reading.reason


def test_owner_of_a_record_is_its_topic_and_of_a_source_nobody(load):
    reading = read(build_cloud_event(), ())
    assert (reading.owner, reading.source) == ("topic:ext.events", SOURCE)


@pytest.mark.parametrize("source", ["Alice Adler", "Ａｌｉｃｅ Adler", "alice", "Al\u200dice"])
def test_source_without_a_rule_is_never_shown_like_a_person(source):
    assert read(build_cloud_event(source=source), ()).sender_name.startswith("Source “")
    assert read(build_cloud_event(), ()).sender_name == SOURCE


def test_name_of_another_topics_bare_events_cannot_be_taken():
    assert read(build_cloud_event(source="kafka:other.topic"), ()).code == "not-allowed"
    assert isinstance(read(build_cloud_event(source="KAFKA:ext.events"), ()), PublishCommand)


def test_first_rule_that_fits_holds(load):
    reading = read(
        build_cloud_event(data=build_role_message("ops")), load('[[rule]]\ntopic = "ext.*"\nsender = "First"\n' + GRID)
    )
    assert reading.sender_name == "First"


def test_foreign_type_becomes_a_message_by_its_template(load):
    event = build_cloud_event(type="com.example.deploy.v3", data={"service": "Shop", "by": "dana", "more": [1]})
    reading = read(event, load(DEPLOY))
    assert (reading.draft.title, reading.draft.content) == ("Shop is live", "By dana.")
    assert reading.draft.keep_as_draft


@pytest.mark.parametrize("data", [{"service": "Shop"}, [1], None, "x", {"service": {}, "by": None, "x": 1}])
def test_data_that_does_not_fit_its_template_is_refused_or_shown_and_never_raises(load, data):
    reading = read(build_cloud_event(type="com.example.deploy.v3") | {"data": data}, load(DEPLOY))
    assert isinstance(reading, Rejection | PublishCommand)
    if isinstance(reading, Rejection):
        assert reading.code in ("template", "fields")


def test_value_is_shown_and_never_run(load):
    """A value that looks like a template, and a template that reaches for more than values."""
    event = build_cloud_event(type="com.example.deploy.v3", data={"service": "{{ 7 * 7 }}", "by": "x"})
    assert read(event, load(DEPLOY)).draft.title == "{{ 7 * 7 }} is live"
    reaching = DEPLOY.replace("data.by", "data.__class__.__mro__[1].__subclasses__()")
    assert read(event, load(reaching)).code == "template"


def test_recall_needs_no_template(load):
    assert read(build_cancel_event("1"), load(GRID)).cancelled_source_id == "1"


@given(data=st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_no_data_makes_a_template_raise_anything_else(data):
    text = rules_file._read_template("title", "{{ data.a.b + data['c'] }}")
    rule = rules.Rule(patterns={"type": ("*",)}, templates={"title": text, "content": text})
    with suppress(rules.TemplateRenderError):
        assert isinstance(rule.build_message_fields(data)["title"], str)


@pytest.mark.parametrize(
    "text",
    [
        "nope", "x = 1", "[rule]\nsource = 'x'", "[[rule]]", "[[rule]]\nsource = 1", "[[rule]]\nsource = 'x'\ncolour = 'red'",
        "[[rule]]\nsource = 'x'\ntitle = 'only'", "[[rule]]\nsource = 'x'\ntitle = '{{'\ncontent = 'x'",
        "[[rule]]\nsource = 'x'\naudiences = ['ops']", "[[rule]]\nsource = 'x'\npriorities = ['LOUD']",
        "[[rule]]\nsource = 'x'\naudiences = 'everyone'", "[[rule]]\nsource = 'x'\ndefaults = { title = 'x' }",
    ],
)  # fmt: skip
def test_wrong_file_stops_the_start_with_a_sentence(load, text):
    with pytest.raises(SettingsError, match="^EVENT_RULES: "):
        load(text)


def test_missing_file_stops_the_start(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        rules_file.load_rules(tmp_path / "nowhere.toml")
    assert rules_file.load_rules(None) == ()


CHECK = """
[[rule]]
type = "com.example.check.*"
title = "{{ data.check }} fails"
content = "x"
collapse_key = "{{ data.check }}/{{ data.host }}"
defaults = { targetType = "ALL" }
limit = 30
window_seconds = 60
"""


def test_collapse_key_is_rendered_on_the_event(load):
    reading = read(build_cloud_event(type="com.example.check.v1", data={"check": "disk", "host": "a"}), load(CHECK))
    assert (reading.collapse_key, reading.draft.title) == ("disk/a", "disk fails")


def test_collapse_key_may_be_plain_text_and_needs_no_other_template(load):
    held = load('[[rule]]\nsource = "*"\ncollapse_key = "always"')
    assert read(build_cloud_event(), held).collapse_key == "always"
    assert read(build_cloud_event(type="com.example.other.v1"), held).code == "type"


def test_collapse_key_of_an_event_goes_before_that_of_its_rule(load):
    held = load('[[rule]]\nsource = "*"\ncollapse_key = "always"')
    assert read(build_cloud_event(data=build_message(collapseKey=" own ")), held).collapse_key == "own"
    assert read(build_cloud_event(data=build_message(collapseKey="own")), ()).collapse_key == "own"
    assert read(build_cloud_event(), ()).collapse_key is None


def test_empty_key_is_none(load):
    held = load('[[rule]]\nsource = "*"\ncollapse_key = "{{ data.category|default(\'\') }}"')
    assert read(build_cloud_event(), held).collapse_key is None


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", 7, [], {}, True])
def test_key_that_is_none_is_refused_with_a_sentence(key):
    reading = read(build_cloud_event(data=build_message() | {"collapseKey": key}), ())
    assert isinstance(reading, Rejection)
    assert reading.code == "fields"
    assert reading.reason.startswith(("collapseKey must", "A collapse key must"))


def test_key_that_cannot_be_rendered_refuses_its_event(load):
    assert read(build_cloud_event(type="com.example.check.v1", data={"check": "disk"}), load(CHECK)).code == "template"


def test_cap_is_counted_under_the_patterns_of_its_rule(load):
    event = build_cloud_event(type="com.example.check.v1", data={"check": "disk", "host": "a"})
    cap = read(event, load(CHECK)).rate_cap
    assert (cap.limit, cap.window_seconds) == (30, 60)
    assert read(event, load(CHECK.replace("fails", "fails again"))).rate_cap == cap
    assert read(event, load(CHECK.replace("check.*", "*"))).rate_cap.rule != cap.rule
    assert read(build_cloud_event(data=build_role_message("ops")), load(GRID)).rate_cap is None


@pytest.mark.parametrize(
    "line", ["limit = 3", "window_seconds = 3", "limit = 0\nwindow_seconds = 1", "limit = 1.5\nwindow_seconds = 1",
             "limit = true\nwindow_seconds = 1", "limit = 1\nwindow_seconds = 86401", "collapse_key = 7"],
)  # fmt: skip
def test_wrong_cap_stops_the_start_with_a_sentence(load, line):
    with pytest.raises(SettingsError, match=r"^EVENT_RULES: .*rules\.toml, line \d: rule 1: "):
        load(f'[[rule]]\nsource = "x"\n{line}')


@pytest.mark.parametrize(
    ("content", "data"),
    [
        ("{{ data.price * data.count }}", {"price": "x" * 60_000, "count": 10**15}),
        ("{{ data.price * data.count }}", {"price": [0] * 1000, "count": 10**15}),
        ("{{ data.price ** data.count }}", {"price": 9**9, "count": 9**9}),
        ("{{ data.price % data.count }}", {"price": "%0999999999d", "count": 1}),
        ("{{ data.price % (data.count, 1) }}", {"price": "%0*d", "count": 10**9}),
    ],
)
def test_event_with_a_text_where_its_rule_expects_a_number_is_rejected(load, content, data):
    rule = f"""
[[rule]]
type = "com.example.sale"
title = "Sold"
content = "{content}"
defaults = {{ targetType = "ALL" }}
"""
    reading = read(build_cloud_event(type="com.example.sale", data=data), load(rule))
    assert isinstance(reading, Rejection)
    assert reading.code == "template"


def test_rule_may_calculate_and_format(load):
    rule = DEPLOY.replace("By {{ data.by }}.", "{{ '%05.2f' % (data.by * 2) }} {{ data.by ** 2 }}")
    reading = read(build_cloud_event(type="com.example.deploy.done", data={"service": "Mail", "by": 3}), load(rule))
    assert reading.draft.content == "06.00 9"


WRONG = {
    'draft = "true"': "draft must be true or false, without quotes, but is 'true'.",
    "draft = 1": "draft must be true or false, without quotes, but is 1.",
    'draft = "yes"': "draft must be true or false, without quotes, but is 'yes'.",
    "draft = []": "draft must be true or false, without quotes, but is [].",
    "drafts = true": "drafts is not a field of a rule; did you mean draft?",
    "Draft = true": "Draft is not a field of a rule; did you mean draft?",
    "most = 3": "most is now limit.",
    "per_seconds = 3": "per_seconds is now window_seconds.",
    "windowSeconds = 3": "windowSeconds is not a field of a rule; did you mean window_seconds?",
    "priority = ['LOW']": "priority is not a field of a rule; did you mean priorities?",
    "colour = 'red'": "colour is not a field of a rule",
    "sender = 7": "sender must be text in quotes, but is 7.",
    "sender = '  '": "sender must be 1 to 100 characters in one line",
    'sender = "a\\nb"': "sender must be 1 to 100 characters in one line",
    "topic = []": "topic is an empty list",
    "topic = ['a', 7]": "topic must be text in quotes, but is 7.",
    "audiences = []": "audiences must be a list of everyone, people, or role:NAME, but is [].",
    "audiences = ['role:']": "audiences must be a list of everyone, people, or role:NAME, but has 'role:'.",
    "audiences = ['role:Night Shift']": "audiences must be a list of everyone, people, or role:NAME",
    "priorities = 'LOW'": "priorities must be a list of LOW, NORMAL, HIGH, URGENT, but is 'LOW'.",
    "priorities = ['low']": "priorities must be a list of LOW, NORMAL, HIGH, URGENT, but has 'low'.",
    "priorities = [true]": "priorities must be a list of LOW, NORMAL, HIGH, URGENT, but has true.",
    "from = 'grid-bot'": "from must name accounts and topics",
    "from = []": "from is an empty list",
    "limit = '3'\nwindow_seconds = 3": "limit must be a whole number from 1 to 1,000,000, but is '3'.",
    "limit = 3.0\nwindow_seconds = 3": "limit must be a whole number from 1 to 1,000,000, but is 3.0.",
    "limit = 3\nwindow_seconds = 60\nsender_limit = 2": "sender_limit must be at least limit, which is 3.",
    "sender_limit = 2": "sender_limit can only be used together with limit and window_seconds.",
    "defaults = 'LOW'": "defaults must be a table",
    "defaults = { priority = 'LOUD' }": "defaults has priority = 'LOUD'. The priority must be one of",
    "defaults = { requiresAck = 'true' }": "requiresAck = 'true'. The field requiresAck must be true or false.",
    "defaults = { requiresAck = 1 }": "defaults has requiresAck = 1.",
    "defaults = { targetType = 'ROLE' }": "defaults has targetIds = None. Choose at least one role",
    "defaults = { targetIds = ['ops'] }": "defaults has targetIds without a targetType.",
    "defaults = { targetType = 'ALL', targetIds = ['ops'] }": "defaults has targetIds = ['ops'].",
    "defaults = { category = 7 }": "defaults has category = 7. The category must be text.",
    "defaults = { Priority = 'LOW' }": "defaults has Priority, which is not a valid default; did you mean priority?",
    "defaults = { priority = 'HIGH' }\npriorities = ['LOW']": "defaults conflicts with the rule.",
    "title = 'x'": "set both title and content, or neither.",
    "title = '{{'\ncontent = 'x'": "title is not a valid template:",
    "collapse_key = ''": "collapse_key must be text of 1 to 10,000 characters",
}


@pytest.mark.parametrize("lines", WRONG)
def test_every_wrong_value_is_refused_with_file_line_and_sentence(load, lines):
    with pytest.raises(SettingsError) as raised:
        load(f'# first\n[[rule]]\nsource = "y"\n\n[[rule]]\nsource = "x"\n{lines}\n')
    sentence = str(raised.value)
    assert WRONG[lines] in sentence
    assert "rules.toml, line " in sentence
    assert ": rule 2: " in sentence
    assert re.search(r"line ([5-9])", sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("[[rules]]\nsource = 'x'", "rules is not read; did you mean rule? The file may contain"), ("", "has no [[rule]]"),
     ("[rule]\nsource = 'x'", "begins with [[rule]]"), ("rule = [7]", "begins with [[rule]]"),
     ("[[rule]]\nsource = 'x'\nsource = 'y'", "cannot be read"), ("\ufeff[[rule]]\nsource = 'x'", "cannot be read")],
)  # fmt: skip
def test_file_that_is_no_file_of_rules_is_refused(load, text, sentence):
    with pytest.raises(SettingsError) as raised:
        load(text)
    assert sentence in str(raised.value)


@given(value=st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.lists(st.integers()), st.none(),
                       st.dictionaries(st.text(), st.integers())),
       name=st.sampled_from(["source", "topic", "type", "from", "sender", "defaults", "title", "collapse_key", "audiences",
                             "priorities", "draft", "limit", "window_seconds", "sender_limit"]))  # fmt: skip
def test_no_value_is_taken_for_another(value, name):
    """Either a rule comes of it that says what was written, or it is refused."""
    try:
        rule = rules_file._parse_rule({"source": "x", name: value})
    except rules_file._RuleError:
        return
    if name == "draft":
        assert rule.is_draft_only is value
    elif name in ("source", "topic", "type", "from", "sender", "title", "collapse_key"):
        assert isinstance(value, str)
    else:
        assert value == {}
