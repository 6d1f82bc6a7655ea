"""No text within 16 KiB blocks a worker's loop: excess structure is refused by name, the rest is rendered in slices."""

import contextlib

import pytest
from hypothesis import given, settings

from broadcast.base.errors import Invalid
from broadcast.content import autolinks, markdown
from broadcast.content.markdown import render
from tests.support.pathological_texts import MAX_TEXT_BYTES, count_lines, pathological_texts, truncate_text

MOST_LINES_AT_ONCE = 300_000  # of Python, some 20 ms
MOST_LINES = 3_000_000  # some 200 ms, in slices of a few

SLOW = {
    "brackets": "[" * MAX_TEXT_BYTES, "stars": "*" * MAX_TEXT_BYTES, "quotes": ">" * MAX_TEXT_BYTES, "nested quotes":
    "> " * (MAX_TEXT_BYTES // 2),
    "nested lists": "- " * (MAX_TEXT_BYTES // 2), "open links": "[a](" * (MAX_TEXT_BYTES // 4), "open images": "![" *
    (MAX_TEXT_BYTES // 2),
    "references": "[x][" * (MAX_TEXT_BYTES // 4), "backticks": "`a``" * (MAX_TEXT_BYTES // 4), "emphasis": "*a_ " *
    (MAX_TEXT_BYTES // 4),
    "star and word": "a**b" + "c* " * (MAX_TEXT_BYTES // 3), "brackets both ways": "[" * (MAX_TEXT_BYTES // 2) + "]"
    * (MAX_TEXT_BYTES // 2),
    "tags": "<a " * (MAX_TEXT_BYTES // 3), "entities": "&" * MAX_TEXT_BYTES, "addresses": "http://[" *
    (MAX_TEXT_BYTES // 8), "slashes": "//a" * (MAX_TEXT_BYTES // 3),
    "names": "a.com " * (MAX_TEXT_BYTES // 6), "colons": "http:" * (MAX_TEXT_BYTES // 5), "lines": "\n" *
    MAX_TEXT_BYTES, "tabs": "\t" * MAX_TEXT_BYTES,
    "stairs": "\n".join(" " * n + "- a" for n in range(170)), "quote stairs": "\n".join(">" * n for n in range(180)),
    "wide table": "|a" * 300 + "\n" + "|-" * 300 + "\n" + "|\n" * 6000, "definitions": "[a]: b\n" * (MAX_TEXT_BYTES // 7),
    "rules": "-" * MAX_TEXT_BYTES, "lines of a list": "1. a\n" * (MAX_TEXT_BYTES // 5), "lines of a quote":
    "> a\n- b\n" * (MAX_TEXT_BYTES // 8),
    "few brackets and many signs": "[" * 999 + "!" * MAX_TEXT_BYTES, "hosts": "é+a." * (MAX_TEXT_BYTES // 5),
    "dashes": "http://a-" * (MAX_TEXT_BYTES // 9),
    "characters of a host": "[a](http://" + "".join(chr(0x4E00 + n) for n in range(5000)) + ")", "mail": "a@" *
    (MAX_TEXT_BYTES // 2),
    "tables": "|-|-\n\n" * (MAX_TEXT_BYTES // 6), "bold brackets": "**[a" * (MAX_TEXT_BYTES // 4), "escapes": "\\" *
    MAX_TEXT_BYTES,
    "as many addresses as may be": "a.com " * markdown.MAX_LINKS,
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
def test_slow_text_gives_way_to_others_and_is_done_or_refused(name):
    _check(truncate_text(SLOW[name]))


@settings(max_examples=30)
@given(pathological_texts)
def test_no_text_keeps_the_loop(text):
    _check(text)


def _check(text: str) -> None:
    def work() -> None:
        with contextlib.suppress(Invalid):
            assert len(render(text)) < 20 * MAX_TEXT_BYTES, "the log and every stream carry it"

    lines = count_lines(work)
    assert lines.max_between_yields <= MOST_LINES_AT_ONCE
    assert lines.total <= MOST_LINES


NEWSLETTER = (
    "# News of the week\n\n"
    + "\n".join(f"- Read [story {n}](https://intranet.example.com/news/{n}) and **tell** us _more_." for n in range(100))
    + "\n\n| Meeting | Room | When |\n|---|---|---|\n"
    + "\n".join(f"| Meeting {n} | {n} | 10:{n % 60:02d} |" for n in range(200))
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        truncate_text(NEWSLETTER),
        truncate_text("Name: ____________________________\n" * 100),
        truncate_text("- server_name_01.example.com\n" * 450),
        truncate_text("```\n" + '{"a": [1, 2, [3]], "b": "<c>"}\n' * 300 + "```"),
        truncate_text("A line of words, as people write them. " * 400),
        truncate_text("Ein Satz mit Wörtern, wie man ihn schreibt; und *betont*.\n\n" * 260),
    ],
)
def test_what_people_write_is_shown(text):
    assert render(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 1001, "1,001 opening square brackets; at most 1,000 fit"),
        ("*a" * 3001, "3,001 emphasis characters"),
        ("a\n" * 2001, "2,001 line breaks; at most 2,000 fit"),
        ("|a" * 30 + "\n" + "|-" * 30 + "\n" + "|\n" * 200, "Its tables have 6,"),
        ("a.com " * 501, "more than 500 web and email addresses"),
        ("- " * 101 + "a", "begins with more than 100 list and quote"),
        ("> " * 21 + "a", "At most 10 lists, or 20 quotes"),
        ("[" * 999 + "!" * 10_000, "nested too deeply"),
    ],
)
def test_refusal_names_the_structure_and_what_is_allowed(text, sentence):
    with pytest.raises(Invalid) as refused:
        render(text)
    assert sentence in refused.value.fields["content"]


def test_deep_quote_is_refused_and_never_cut_off():
    assert "the end" in render("> " * 20 + "the end")
    with pytest.raises(Invalid):
        render("> " * 22 + "the end")


@pytest.mark.parametrize(
    "text",
    [
        "![A plan](https://a.example/plan.png)", "![](https://a.example/x.png)",
        "[](https://a.example)",
        "[\u200b](https://a.example)",
        "\u200b\u200c\u2060", "\u3164", "\u2800 \u2800", "&#8203;&zwj;", "\u0301\u0302", "---", "[a]: https://a.example", "#",
        "> ", "- ", "| |\n|-|\n| |", "```\n\n```", "**\u200b**", "\U000e0041", "\ufeff", "\u00ad",
        "![a](https://a.example)\n\n---\n\n[](https://b.example)",
    ],
)  # fmt: skip
def test_text_that_nobody_can_see_is_refused_as_empty(text):
    with pytest.raises(Invalid, match="visible"):
        render(text)


@pytest.mark.parametrize(
    "text",
    ["👍", "👩\u200d🚒", "می\u200cخواهم", "<b></b>", "`x`", "…", "   code", "[x](https://a.example)", "é", "\ue000"],
)
def test_text_that_can_be_seen_is_not(text):
    assert render(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see https://a.example/b?c=d&e=f.", ["https://a.example/b?c=d&e=f"]),
        ("(https://a.example/b_(c))", ["https://a.example/b_(c)"]),
        ("**https://a.example**, www.b.example!", ["https://a.example", "http://www.b.example"]),
        ("bob@example.com, mailto:c@d.example", ["mailto:bob@example.com", "mailto:c@d.example"]),
        ("http://localhost:8080/x http://10.0.0.1/", ["http://localhost:8080/x", "http://10.0.0.1/"]),
        ("example.com/x and münchen.de", ["http://example.com/x", "http://münchen.de"]),
        ("a.txt e.g. 1.5 10.0.0.1 a@b x.com.foo http://-", []),
        ("https://a.example/?next=https://b.example", ["https://a.example/?next=https://b.example"]),
        ("http://user:word@a.example/", ["http://user:word@a.example/"]),
        ('"https://a.example/x"', ["https://a.example/x"]),
        ("x" * 300 + ".com", []),
    ],
)
def test_addresses_are_found_in_text(text, found):
    assert [address.url for address in autolinks.find_addresses(text)] == found


@given(pathological_texts)
def test_addresses_stand_in_the_text_where_they_say(text):
    end = 0
    for address in autolinks.find_addresses(text):
        assert end <= address.index < address.last_index
        assert text[address.index : address.last_index] == address.text
        end = address.last_index


def test_long_text_lets_others_run(monkeypatch):
    turns: list[int] = []
    monkeypatch.setattr("broadcast.base.cooperative.yield_to_loop", lambda: turns.append(1))
    monkeypatch.setattr("broadcast.base.cooperative._MAX_WORK_SECONDS", 0)
    markdown.render(truncate_text(NEWSLETTER))
    assert len(turns) > 1000
