"""Message templates: what they can express, and that none can hang, crash or reach outside."""

import contextlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from broadcast.base.errors import Invalid
from broadcast.content import message_templates
from tests.support.pathological_texts import count_lines


@pytest.mark.parametrize(
    ("text", "values", "filled"),
    [
        ("The {{ what }} stand still.", {"what": "lifts"}, "The lifts stand still."),
        ("{{ name|upper }}{% if until %} until {{ until }}{% endif %}", {"name": "x", "until": ""}, "X"),
        ("{% for place in places|split %}- {{ place }}\n{% endfor %}", {"places": "A, B,"}, "- A\n- B\n"),
        ("{% for n in range(3) %}{{ n + 1 }}{% endfor %}", {}, "123"),
        ("{{ a|default('none') }}", {}, "none"),
        ("{{ 1.256|round(2) }}{{ 'x' if a == 'y' }}.", {"a": "z"}, "1.26."),
        ("{% raw %}{{ a }}{% endraw %}{# not this #}", {}, "{{ a }}"),
        ("{% for a in x|split %}{{ a }}{% else %}none{% endfor %}", {"x": ""}, "none"),
        ("{% if n|int is odd %}odd{% elif n|int > 2 and n != '4' %}big{% else %}{{ n }}{% endif %}", {"n": "4"}, "4"),
        ("**{{ evil }}** <b>", {"evil": "{{ 7 }} <i>"}, "**{{ 7 }} <i>** <b>"),
    ],
)
def test_variables_are_filled_in(text, values, filled):
    assert message_templates.fill_template(text, values) == filled


def test_variables_are_found():
    assert message_templates.list_variables(
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
    "a constant of many digits": "{{ 1.5|round(12000000, 'ceil') }}",
    "digits of a text": "{{ a|round(12000000, 'floor') }}",
    "a width in a text that is asked whether it is odd": "{% if wide is odd %}x{% endif %}",
    "a width in a constant": "{{ '%0999999999d' is even }}",
    "very many places": "{{a}}" * 3000,
    "very many words": "{{ a" + " or a" * 4000 + " }}",
    "filters in loops": "{% for n in range(400) %}{% if x" + "|upper" * 300 + " == a %}{% endif %}{% endfor %}",
    "filters of filters in loops": "{% for n in range(400) %}{% if x"
    + "|upper" * 30
    + " == a %}{% endif %}{% endfor %}",
    "searches in loops": "{% for n in range(400) %}{% if (a ~ a) in x %}{% endif %}{% endfor %}",
    "a text in itself": "{% for n in range(499) %}{% if x in x %}{% endif %}{% if x in x %}{% endif %}{% endfor %}",
    "trim of many": "{{ x|trim('" + "yz" * 500 + "') }}",
    "more than fits": "x" * 20_001,
}


@pytest.mark.parametrize("what", FOREVER)
def test_template_without_an_end_ends(what):
    """Bad input of the console: it is refused with a sentence, long before anybody would notice."""
    told: list[str] = []

    def run() -> None:
        try:
            message_templates.fill_template(FOREVER[what], {"a": "1", "x": "x" * 20_000, "wide": "%0999999999d"})
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
        message_templates.fill_template(text, {"a": "x", "b": "y"})


def test_missing_variable_is_told():
    with pytest.raises(Invalid, match="what"):
        message_templates.fill_template("{{ what }}", {})


@given(st.text(alphabet="{}%|()x1 +-'for in range if endfor endif\n", max_size=60))
def test_no_text_does_more_than_be_refused(text):
    with contextlib.suppress(Invalid):
        message_templates.fill_template(text, {"x": "1"})


_EXPRESSIONS = [
    "a", "b", "n", "missing", "a|upper", "b|title|trim", "a|split", "a|split|join('; ')", "a|split|first", "a|split|last",
    "n|int + 1", "n|int - 2", "a|length", "a|default('d')", "missing|default('d')", "b|capitalize",
    "3.14159|round(2)", "'x' if a else 'y'",
    "'z' if b", "a == b", "n|int < 3 <= 5", "'1' in a", "a not in b", "not b", "a and b", "a or b",
    "range(3)|join(',')", "none", "true", "1.0",
    "n is defined", "missing is undefined", "n|int is even", "a is none", "b|lower", "'tx' 'ty'",
]  # fmt: skip
_expressions = st.sampled_from(_EXPRESSIONS)
_templates = st.recursive(
    st.sampled_from(["text ", "\n", "{# c #}", "{% raw %}{{{% endraw %}", "  "])
    | _expressions.map("{{{{ {} }}}}".format),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.builds(
            "{{% if {} %}}{}{{% elif {} %}}{}{{% else %}}{}{{% endif %}}".format, *[_expressions, inner] * 2, inner
        ),
        st.builds("{{% for a in ({}) %}}{}{{% else %}}{}{{% endfor %}}".format, _expressions, inner, inner),
    ),
    max_leaves=8,
)


@given(_templates, st.sampled_from(["", "1", "x, y ,z", "%s {{ a }}"]), st.sampled_from(["", "3", "B b"]))
def test_what_is_filled_in_reads_as_jinja_writes_it(text, a, b):
    """The walk over the tree means what Jinja's own compiler means, for every template that was kept before."""
    jinja = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters["split"] = lambda value: [part.strip() for part in str(value).split(",") if part.strip()]
    values = {"a": a, "b": b, "n": "4"}
    try:
        expected = jinja.from_string(text).render(values)
    except (TemplateError, TypeError, ValueError):
        expected = None
    try:
        assert message_templates.fill_template(text, values) == expected
    except Invalid:
        assert expected is None


_STARTS = ["", "{{ a", "{{ ", "{% if ", "{% for n in range(400) %}", "{%", "{#", "{% raw %}", "{{ '"]
_UNITS = [
    "{{a}}", "{{", "|upper", "|title", "|split|join(a)", " ~ a", "+1", "(", "[", "{% if a %}",
    "{% for x in a %}", "a,", "'", "-",
    " is odd", " in a", "{{ a|trim(a) }}", "{% if a in a %}{% endif %}", "{#", "9", "\\'", " ", "\n",
]  # fmt: skip
_ENDS = ["", " }}", " %}", "{% endif %}", "{% endfor %}", "#}", "{% endraw %}"]


@settings(max_examples=100)
@given(
    st.sampled_from(_STARTS),
    st.sampled_from(_UNITS),
    st.sampled_from([1, 10, 200, 499, 3000, 16_000]),
    st.sampled_from(_ENDS),
    st.sampled_from([1, 300]),
)
def test_no_template_keeps_the_loop(start, unit, times, end, ends):
    text = start + unit * times + end * ends

    def work() -> None:
        with contextlib.suppress(Invalid):
            message_templates.list_variables(text)
            message_templates.fill_template(text, dict.fromkeys("anx", "a, " * 600))

    assert count_lines(work).total <= 700_000, "lines of Python, some 40 ms"
