"""Sentences of templates: their markup is trusted, their variables are not."""

import pytest
from flask import Flask


@pytest.mark.parametrize(
    ("template", "html"),
    [
        ("{{ _('Done & <b>sent</b>') }}", "Done & <b>sent</b>"),
        ("{{ _('Sent by %(name)s', name='<b>') }}", "Sent by &lt;b&gt;"),
        ("{{ _('Ended %(time)s', time='<time>'|safe) }}", "Ended <time>"),
        ("{{ ngettext('one of %(name)s', '%(num)s of %(name)s', 2, name='<b>') }}", "2 of &lt;b&gt;"),
        ("{% trans %}Show <i>all</i>{% endtrans %}", "Show <i>all</i>"),
        ("{% trans name='<b>' %}Via <bdi>{{ name }}</bdi>{% endtrans %}", "Via <bdi>&lt;b&gt;</bdi>"),
        ("{{ _('%(text)s, %(eval_context)s', text='a', eval_context='b') }}", "a, b"),
        ("{{ _('100 %% reached') }}", "100 % reached"),
        ("{{ _('%(share)s %% reached', share=50) }}", "50 % reached"),
        ("{% trans %}50 % reached{% endtrans %}", "50 % reached"),
        ("{{ _('A title')|length }}", "7"),
    ],
)
def test_translated_text_is_trusted_and_variables_are_escaped(app: Flask, template, html):
    sentence = app.jinja_env.from_string(template)
    assert [sentence.render(), sentence.render()] == [html, html]


def test_text_without_autoescape_has_no_markup(app: Flask):
    template = "{% autoescape false %}{{ _('100 %%') }} {{ _('by %(name)s', name='<b>') }}{% endautoescape %}"
    assert app.jinja_env.from_string(template).render() == "100 % by <b>"
    assert app.jinja_env.from_string("{{ _('100 %%') ~ '<b>' }}").render() == "100 %&lt;b&gt;"


def test_constant_sentences_and_icons_are_text_of_the_compiled_template(app: Flask):
    """They were half of what rendering a page took."""
    source = "<p>{{ icon('bell') }}{{ _('100 %% reached') }}{% trans %}, <i>all</i>{% endtrans %}</p>"
    code = app.jinja_env.compile(source, raw=True)
    assert "100 % reached" in code
    assert "<svg" in code
    assert "context.call" not in code


def test_icon_whose_name_is_a_variable_is_the_same(app: Flask):
    constant, variable = (
        "{{ icon('bell', 'Alerts') }}",
        "{% for name in ['bell'] %}{{ icon(name, 'Alerts') }}{% endfor %}",
    )
    assert app.jinja_env.from_string(variable).render() == app.jinja_env.from_string(constant).render()


def test_constant_beside_other_text_stays_markup(app: Flask):
    assert app.jinja_env.from_string("{{ _('A <b>') ~ '<' }}").render() == "A <b>&lt;"
