"""Rules of sources: read strictly, applied to what events leave out, how they read, and what they may ask for."""

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.domain.arrival import Publish, Rejected
from broadcast.domain.message import Priority, Target, TargetType
from broadcast.ingest import contract, rules
from broadcast.settings import SettingsError
from tests.acts import a_message, to_people, to_role
from tests.ingest.records import SOURCE, a_cancel, an_event, structured

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
    def load(text: str) -> rules.Rules:
        path = tmp_path / "rules.toml"
        path.write_text(text)
        return rules.load(path)

    return load


def read(event, held):
    return contract.read(structured(event), now=NOW, rules=held)


def test_what_an_event_leaves_out_its_rule_fills_in(load):
    reading = read(an_event(data={"title": "Lifts", "content": "x"}), load(GRID))
    assert isinstance(reading, Publish)
    assert reading.draft.target == Target(TargetType.ROLE, ("ops",))
    assert (reading.draft.category, reading.sender_name) == ("Incident", "Grid control")


def test_what_an_event_says_goes_before_the_default(load):
    reading = read(an_event(data=to_role("ops", category="News")), load(GRID))
    assert reading.draft.category == "News"


@pytest.mark.parametrize(
    "data",
    [a_message(), to_role("ops", "sales"), to_people("bob"), to_role("ops", priority="URGENT")],
    ids=["everyone", "another role", "people", "a priority"],
)
def test_what_a_source_may_not_use_is_refused_with_its_name(load, data):
    reading = read(an_event(data=data), load(GRID))
    assert isinstance(reading, Rejected)
    assert (reading.code, reading.source) == ("not-allowed", SOURCE)
    assert "may not" in reading.reason


def test_rule_of_another_source_does_not_hold(load):
    reading = read(an_event(source="https://elsewhere", data=a_message(priority="URGENT")), load(GRID))
    assert reading.draft.priority is Priority.URGENT


def test_first_rule_that_fits_holds(load):
    reading = read(an_event(data=to_role("ops")), load('[[rule]]\ntopic = "ext.*"\nsender = "First"\n' + GRID))
    assert reading.sender_name == "First"


def test_foreign_type_becomes_a_message_by_its_template(load):
    event = an_event(type="com.example.deploy.v3", data={"service": "Shop", "by": "dana", "more": [1]})
    reading = read(event, load(DEPLOY))
    assert (reading.draft.title, reading.draft.content) == ("Shop is live", "By dana.")
    assert reading.draft.keep_as_draft


@pytest.mark.parametrize("data", [{"service": "Shop"}, [1], None, "x", {"service": {}, "by": None, "x": 1}])
def test_data_that_does_not_fit_its_template_is_refused_or_shown_and_never_raises(load, data):
    reading = read(an_event(type="com.example.deploy.v3") | {"data": data}, load(DEPLOY))
    assert isinstance(reading, Rejected | Publish)
    if isinstance(reading, Rejected):
        assert reading.code in ("template", "fields")


def test_value_is_shown_and_never_run(load):
    """A value that looks like a template, and a template that reaches for more than values."""
    event = an_event(type="com.example.deploy.v3", data={"service": "{{ 7 * 7 }}", "by": "x"})
    assert read(event, load(DEPLOY)).draft.title == "{{ 7 * 7 }} is live"
    reaching = DEPLOY.replace("data.by", "data.__class__.__mro__[1].__subclasses__()")
    assert read(event, load(reaching)).code == "template"


def test_recall_needs_no_template(load):
    assert read(a_cancel("1"), load(GRID)).cancels == "1"


@given(data=st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_no_data_makes_a_template_raise_anything_else(data):
    text = rules._template("{{ data.a.b + data['c'] }}", "title")
    rule = rules.Rule(fits={"type": "*"}, templates={"title": text, "content": text})
    with suppress(rules.TemplateFailed):
        assert isinstance(rule.shape(data)["title"], str)


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
        rules.load(tmp_path / "nowhere.toml")
    assert rules.load(None) == ()


CHECK = """
[[rule]]
type = "com.example.check.*"
title = "{{ data.check }} fails"
content = "x"
collapse_key = "{{ data.check }}/{{ data.host }}"
defaults = { targetType = "ALL" }
most = 30
per_seconds = 60
"""


def test_collapse_key_is_rendered_on_the_event(load):
    reading = read(an_event(type="com.example.check.v1", data={"check": "disk", "host": "a"}), load(CHECK))
    assert (reading.collapse_key, reading.draft.title) == ("disk/a", "disk fails")


def test_collapse_key_may_be_plain_text_and_needs_no_other_template(load):
    held = load('[[rule]]\nsource = "*"\ncollapse_key = "always"')
    assert read(an_event(), held).collapse_key == "always"
    assert read(an_event(type="com.example.other.v1"), held).code == "type"


def test_collapse_key_of_an_event_goes_before_that_of_its_rule(load):
    held = load('[[rule]]\nsource = "*"\ncollapse_key = "always"')
    assert read(an_event(data=a_message(collapseKey=" own ")), held).collapse_key == "own"
    assert read(an_event(data=a_message(collapseKey="own")), ()).collapse_key == "own"
    assert read(an_event(), ()).collapse_key is None


def test_empty_key_is_none(load):
    held = load('[[rule]]\nsource = "*"\ncollapse_key = "{{ data.category|default(\'\') }}"')
    assert read(an_event(), held).collapse_key is None


@pytest.mark.parametrize("key", ["", "x" * 201, "a\nb", 7, [], {}, True])
def test_key_that_is_none_is_refused_with_a_sentence(key):
    reading = read(an_event(data=a_message() | {"collapseKey": key}), ())
    assert isinstance(reading, Rejected)
    assert reading.code == "fields"
    assert reading.reason.startswith(("collapseKey is", "A collapse key is"))


def test_key_that_cannot_be_rendered_refuses_its_event(load):
    assert read(an_event(type="com.example.check.v1", data={"check": "disk"}), load(CHECK)).code == "template"


def test_cap_is_counted_under_the_patterns_of_its_rule(load):
    event = an_event(type="com.example.check.v1", data={"check": "disk", "host": "a"})
    cap = read(event, load(CHECK)).cap
    assert (cap.most, cap.per_seconds) == (30, 60)
    assert read(event, load(CHECK.replace("fails", "fails again"))).cap == cap
    assert read(event, load(CHECK.replace("check.*", "*"))).cap.rule != cap.rule
    assert read(an_event(), load(GRID.replace("grid.example.com", "elsewhere"))).cap is None


@pytest.mark.parametrize(
    "line", ["most = 3", "per_seconds = 3", "most = 0\nper_seconds = 1", "most = 1.5\nper_seconds = 1",
             "most = true\nper_seconds = 1", "most = 1\nper_seconds = 86401", "collapse_key = 7"],
)  # fmt: skip
def test_wrong_cap_stops_the_start_with_a_sentence(load, line):
    with pytest.raises(SettingsError, match="^EVENT_RULES: rule 1: "):
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
    reading = read(an_event(type="com.example.sale", data=data), load(rule))
    assert isinstance(reading, Rejected)
    assert reading.code == "template"


def test_rule_may_calculate_and_format(load):
    rule = DEPLOY.replace("By {{ data.by }}.", "{{ '%05.2f' % (data.by * 2) }} {{ data.by ** 2 }}")
    reading = read(an_event(type="com.example.deploy.done", data={"service": "Mail", "by": 3}), load(rule))
    assert reading.draft.content == "06.00 9"
