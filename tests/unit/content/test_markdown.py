"""Markdown to HTML that is safe on any page: the output is parsed again and checked tag by tag."""

import contextlib
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcast.base.errors import Invalid
from broadcast.content import markdown
from broadcast.content.markdown import render

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


class Judge(HTMLParser):
    """Reads HTML as a lenient parser does and gathers everything that must not be there."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.wrong: list[str] = []

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


def judge(text: str) -> Judge:
    """What is wrong with the HTML of a text; of one that is refused, nothing."""
    found = Judge()
    with contextlib.suppress(Invalid):
        found.feed(render(text))
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


@pytest.mark.parametrize("text", XSS)
def test_xss_corpus_comes_out_inert(text):
    found = judge(f"before\n\n{text}\n\nafter {text}")
    assert found.wrong == []


@given(
    st.lists(
        st.sampled_from(XSS) | st.text(max_size=20) | st.sampled_from(list("\n*_[](){}<>`|-#>!&;:\"'\\ ")), max_size=12
    )
)
def test_whatever_is_typed_stays_within_the_list(parts):
    assert judge("".join(parts)).wrong == []


@pytest.mark.parametrize(
    ("text", "html"),
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
def test_what_a_sender_needs_is_kept(text, html):
    assert render(text) == html


@pytest.mark.parametrize(
    "text", ["[x](https://a.example)", "https://a.example", "www.example.com", "<https://a.example>"]
)
def test_links_lead_out_without_telling_from_where(text):
    html = render(text)
    assert 'rel="noopener noreferrer nofollow"' in html
    assert 'href="http' in html


def test_mail_address_is_a_link():
    assert 'href="mailto:a@b.example"' in render("[x](mailto:a@b.example)")


@given(st.from_regex(markdown._PLAIN_LINE, fullmatch=True))
def test_plain_line_is_what_the_libraries_make_of_it(text):
    assert render(text) == markdown._render_markdown(text)
