"""Message templates: what they can say, and that nothing written in one can hang, crash or look out."""

import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.content import message_templates
from broadcast.errors import Invalid


@pytest.mark.parametrize(
    ("text", "values", "filled"),
    [
        ("The {{ what }} stand still.", {"what": "lifts"}, "The lifts stand still."),
        ("{{ name|upper }}{% if until %} until {{ until }}{% endif %}", {"name": "x", "until": ""}, "X"),
        ("{% for place in places|split %}- {{ place }}\n{% endfor %}", {"places": "A, B,"}, "- A\n- B\n"),
        ("{% for n in range(3) %}{{ n + 1 }}{% endfor %}", {}, "123"),
        ("{{ a|default('none') }}", {}, "none"),
        ("**{{ evil }}** <b>", {"evil": "{{ 7 }} <i>"}, "**{{ 7 }} <i>** <b>"),
    ],
)
def test_variables_are_filled_in(text, values, filled):
    assert message_templates.fill(text, values) == filled


def test_variables_are_found():
    assert message_templates.variables(
        "{{ b }} {{ a|upper }}", "{% for x in c|split %}{{ x }}{{ range(2)|length }}{% endfor %}"
    ) == ["a", "b", "c"]


FOREVER = {
    "a loop of a thousand million": "{% for n in range(1000000000) %}x{% endfor %}",
    "a silent one": "{% for n in range(1000000000) %}{% endfor %}",
    "loops in loops": "{% for a in range(400) %}" * 4 + "{% endfor %}" * 4,
    "a loop with a condition": "{% for n in range(1000000000) if n is odd %}{% endfor %}",
    "a condition that is never true": "{% for n in range(1000000000) if false %}{% endfor %}",
    "a join": "{{ range(1000000000)|join }}",
    "a long row of digits": "{{ (9 ** 9) ** 9 }}",
    "many copies": "{{ 'x' * 1000000000 }}",
    "wide text": "{{ 'x'|center(1000000000) }}",
    "a format": "{{ '%01000000000d'|format(1) }}",
    "a join by itself": "{{ x|join(x)|join(x)|length }}",
    "a long sum": "{% for n in range(400) %}{% if " + "+".join(["x"] * 3000) + " %}{% endif %}{% endfor %}",
    "many digits": "{{ " + "9" * 6000 + " }}",
    "many ifs in one another": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "many brackets": "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}",
}


@pytest.mark.parametrize("what", FOREVER)
def test_template_without_an_end_ends(what):
    """Bad input of the console: it is refused with a sentence, long before anybody would notice."""
    told: list[str] = []

    def run() -> None:
        try:
            message_templates.fill(FOREVER[what], {"a": "1", "x": "x" * 20_000})
        except Invalid as invalid:
            told.append(str(invalid))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert told, "still at it" if thread.is_alive() else "it went through"


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}", "{{ a.b }}", "{{ a['b'] }}", "{{ a() }}", "{% set x = 1 %}",
        "{% include 'x' %}", "{% import 'x' as y %}",
        "{% extends 'x' %}", "{% macro m() %}{% endmacro %}",
        "{% block b %}{% endblock %}", "{{ self }}", "{{ a|attr('b') }}",
        "{{ a|tojson }}", "{{ [1, 2] }}", "{{ {'a': 1} }}", "{{ 1 * 2 }}", "{{ a ~ b }}", "{{ cycler('a') }}", "{{ __x }}",
        "{{ count_a_round() }}", "{% for x in range(1, 2, 3) %}{% endfor %}", "{% call a() %}{% endcall %}",
        "{{ a is callable }}",
        "{% filter upper %}x{% endfilter %}", "{% for x in a recursive %}{% endfor %}", "{{", "{% if %}", "{{ range(*a) }}",
    ],
)  # fmt: skip
def test_template_cannot_reach_out(text):
    with pytest.raises(Invalid):
        message_templates.fill(text, {"a": "x", "b": "y"})


def test_missing_variable_is_told():
    with pytest.raises(Invalid, match="what"):
        message_templates.fill("{{ what }}", {})


@given(st.text(alphabet="{}%|()x1 +-'for in range if endfor endif\n", max_size=60))
def test_no_text_does_more_than_be_refused(text):
    with contextlib.suppress(Invalid):
        message_templates.fill(text, {"x": "1"})
