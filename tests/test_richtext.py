"""Markdown → HTML that is safe in anybody's page: what comes out is parsed again, and judged tag by tag."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast import richtext
from broadcast.richtext import to_html

TAGS = {
    "p",
    "br",
    "hr",
    "strong",
    "em",
    "s",
    "code",
    "pre",
    "blockquote",
    "ul",
    "ol",
    "li",
    "a",
    "h3",
    "h4",
    "h5",
    "h6",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
}
ATTRIBUTES = {"a": {"href", "title", "rel"}, "ol": {"start"}}
SIZE = 16 * 1024


class Judge(HTMLParser):
    """Reads HTML as a lenient parser does and gathers everything that must not be there."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []
        self.size = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.wrong.append(tag)
        for name, value in attrs:
            if name not in ATTRIBUTES.get(tag, ()):
                self.wrong.append(f"{tag} {name}={value}")
            if name == "href" and not (value or "").lower().startswith(("http://", "https://", "mailto:")):
                self.wrong.append(f"href {value}")
            if name == "rel" and set((value or "").split()) != {"noopener", "noreferrer", "nofollow"}:
                self.wrong.append(f"rel {value}")
        if tag == "a" and "rel" not in dict(attrs):
            self.wrong.append("a without rel")

    handle_startendtag = handle_starttag

    def handle_comment(self, data: str) -> None:
        self.wrong.append(f"comment {data}")

    def handle_decl(self, decl: str) -> None:
        self.wrong.append(f"declaration {decl}")

    def handle_pi(self, data: str) -> None:
        self.wrong.append(f"instruction {data}")

    unknown_decl = handle_decl


def judge(markdown: str) -> Judge:
    found, html = Judge(), to_html(markdown)
    found.size = len(html)
    found.feed(html)
    found.close()
    return found


XSS = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<style>@import '//evil.example';</style>",
    "<base href=//evil.example/>",
    "<form action=//evil.example><button>x</button></form>",
    "<input autofocus onfocus=alert(1)>",
    "<div hx-get=/console hx-trigger=load>x</div>",
    "<p data-hx-on:click=alert(1)>x</p>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\nscript:alert(1))",
    "[x](java&#10;script:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "[x](vbscript:msgbox(1))",
    "[x](//evil.example)",
    "[x](/console/broadcasts/1/cancel)",
    "[x](file:///etc/passwd)",
    "[x][r]\n\n[r]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "<data:text/html,x>",
    "![x](https://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    "![x](x\" onerror=\"alert(1))",
    "[x](https://a.example \"\" onmouseover=\"alert(1))",
    "[x](https://a.example '\"><script>alert(1)</script>')",
    "[\"><script>alert(1)</script>](https://a.example)",
    "[x](https://a.example/\"onmouseover=\"alert(1))",
    "`<script>alert(1)</script>`",
    "```\"><script>alert(1)</script>\nx\n```",
    "    <script>alert(1)</script>",
    "| <script>alert(1)</script> | b |\n|---|---|\n| <img src=x onerror=alert(1)> | d |",
    "# <svg onload=alert(1)>",
    "https://a.example/<script>alert(1)</script>",
    "https://a.example/\"onmouseover=alert(1)//",
    "www.a.example\"><img src=x onerror=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<a\thref=\"https://a.example\"\nonclick=alert(1)>x</a>",
    "<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>",
    "\u202e<script>alert(1)</script>",
    "<\u0000script>alert(1)</script>",
    "<title></title><script>alert(1)</script><textarea>",
    "<p id=clobbered name=body class=button>x</p>",
]  # fmt: skip


@pytest.mark.parametrize("markdown", XSS)
def test_xss_corpus_comes_out_inert(markdown):
    found = judge(f"before\n\n{markdown}\n\nafter {markdown}")
    assert found.wrong == []


@given(
    st.lists(
        st.sampled_from(XSS) | st.text(max_size=20) | st.sampled_from(list("\n*_[](){}<>`|-#>!&;:\"'\\ ")), max_size=12
    )
)
def test_whatever_is_typed_stays_within_the_list(parts):
    assert judge("".join(parts)).wrong == []


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**a** *b* ~~c~~ `d`", "<p><strong>a</strong> <em>b</em> <s>c</s> <code>d</code></p>\n"),
        ("a\nb", "<p>a<br>\nb</p>\n"),
        ("# a\n## b\n#### c", "<h3>a</h3>\n<h3>b</h3>\n<h4>c</h4>\n"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("3. a", '<ol start="3">\n<li>a</li>\n</ol>\n'),
        ("> a", "<blockquote>\n<p>a</p>\n</blockquote>\n"),
        ("a & b < c", "<p>a &amp; b &lt; c</p>\n"),
    ],
)
def test_what_a_sender_needs_is_kept(markdown, html):
    assert to_html(markdown) == html


@pytest.mark.parametrize(
    "markdown", ["[x](https://a.example)", "https://a.example", "www.example.com", "<https://a.example>"]
)
def test_links_lead_out_without_telling_from_where(markdown):
    html = to_html(markdown)
    assert 'rel="noopener noreferrer nofollow"' in html
    assert 'href="http' in html


def test_mail_address_is_a_link():
    assert 'href="mailto:a@b.example"' in to_html("[x](mailto:a@b.example)")


PATHOLOGICAL = {
    "brackets": "[" * SIZE, "stars": "*" * SIZE, "quotes": ">" * SIZE, "nested quotes": "> " * (SIZE // 2),
    "nested lists": "- " * (SIZE // 2), "open links": "[a](" * (SIZE // 4), "open images": "![" * (SIZE // 2),
    "references": "[x][" * (SIZE // 4), "backticks": "`a``" * (SIZE // 4), "emphasis": "*a_ " * (SIZE // 4),
    "star and word": "a**b" + "c* " * (SIZE // 3), "brackets both ways": "[" * (SIZE // 2) + "]" * (SIZE // 2),
    "tags": "<a " * (SIZE // 3), "entities": "&" * SIZE, "addresses": "http://[" * (SIZE // 8), "slashes": "//a" * (SIZE // 3),
    "names": "a.com " * (SIZE // 6), "colons": "http:" * (SIZE // 5), "lines": "\n" * SIZE, "tabs": "\t" * SIZE,
    "stairs": "\n".join(" " * n + "- a" for n in range(170)), "quote stairs": "\n".join(">" * n for n in range(180)),
    "wide table": "|a" * 300 + "\n" + "|-" * 300 + "\n" + "|\n" * 6000, "definitions": "[a]: b\n" * (SIZE // 7),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHOLOGICAL)
def test_pathological_input_is_rendered_in_reasonable_time(name):
    started = time.process_time()
    found = judge(PATHOLOGICAL[name][:SIZE])
    assert time.process_time() - started < 5, "seconds in which no stream of the worker gets anything"
    assert found.wrong == []
    assert found.size < 64 * SIZE, "the log and every stream carry what a table is filled up to"


@given(st.from_regex(richtext._PLAIN, fullmatch=True))
def test_plain_line_is_what_the_libraries_make_of_it(text):
    assert to_html(text) == richtext._render(text)
