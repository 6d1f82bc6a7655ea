"""References in code, documentation and tests exist: files, anchors in documents, and names that documents quote."""

import re
from pathlib import Path

import pytest

from broadcast.config.settings import RENAMED

TOP = Path(__file__).resolve().parents[3]
_TEXTS = (".py", ".md", ".html", ".js", ".css", ".toml", ".yml", ".yaml", ".json", ".sh", ".txt", ".conf", ".ini")
_NOT_OURS = {".git", ".venv", "node_modules", "vendor", "shared", "instance", "data", "__pycache__", ".ruff_cache"}
_OURS = ("docs", "tests", "deploy", "static", "templates", "bench", "broadcast", "migrations")
# a path that begins with a folder of ours and ends like a file or a folder of ours
_PATH = re.compile(rf"(?<![\w./:@<-])((?:{'|'.join(_OURS)})/[\w./-]*\w/?)(?:::(test_\w+))?(?:#([\w-]+))?")
_MANUALS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "bench/README.md")
# settings, metrics, events of the log file, functions and classes: words that no prose has
_NAME = re.compile(r"[A-Za-z]\w*_\w+|[a-z]\w*(?:\.[a-z]\w*)+|[A-Z]\w*[a-z][A-Z]\w*")
# of PostgreSQL, browsers and OpenTelemetry, and the example of a migration's name
_NAMES_OF_OTHERS = re.compile(r"pg_stat_activity|synchronous_commit|whenDefined|OTEL_\w+|\d{4}_words\.py")
_IS_FILE = re.compile(r"\.(py|md|html|js|css|toml|ya?ml|json|sh|txt|conf|ini|mako|png|svg)$")


def texts() -> list[Path]:
    found = (path for path in TOP.rglob("*") if not _NOT_OURS & set(path.relative_to(TOP).parts))
    return sorted(p for p in found if p.is_file() and (p.suffix in _TEXTS or p.name in ("Makefile", "Dockerfile")))


def anchors_of(document: Path) -> set[str]:
    """The places that a heading makes, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    words = (re.sub(r"[^\w\s-]", "", re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", heading)) for heading in headings)
    return {re.sub(r"\s", "-", word.strip().lower()) for word in words}


def problems_of(path: Path) -> list[str]:
    text, problems = path.read_text(errors="replace"), []
    for name, test, anchor in _PATH.findall(text):
        target = TOP / name
        if not _IS_FILE.search(name):
            continue
        if not target.exists():
            problems.append(f"{name} does not exist")
        elif test and f"def {test}(" not in target.read_text():
            problems.append(f"{name}::{test} does not exist")
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            problems.append(f"{name}#{anchor} does not exist")
    if path.suffix == ".md":
        problems += broken_links(path, text)
    return problems


def broken_links(document: Path, text: str) -> list[str]:
    problems = []
    for name, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = (document.parent / name) if name else document
        if not target.exists():
            problems.append(f"the link to {name} leads nowhere")
        elif anchor and target.suffix == ".md" and anchor not in anchors_of(target):
            problems.append(f"the link to {name}#{anchor} leads nowhere")
    return problems


def test_what_is_named_exists():
    found = {str(path.relative_to(TOP)): problems_of(path) for path in texts() if path.name != Path(__file__).name}
    assert {name: problems for name, problems in found.items() if problems} == {}


def unknown_names(document: str, code: str, files: set[str]) -> set[str]:
    """What a document quotes in `…` and neither the code nor the names of the files have. `code` is in lower case."""
    unknown = set()
    for quote in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", document, flags=re.M | re.S)):
        if re.fullmatch(r"[\w./-]+", quote) and _IS_FILE.search(quote):
            if not any(file.endswith(f"/{quote}") for file in files) and quote.lower() not in code:
                unknown.add(quote)
        elif "/" not in quote:
            parts = [part for name in _NAME.findall(quote) for part in name.split(".")]
            unknown |= {part for part in parts if part.removesuffix("_total").lower() not in code}
    return {name for name in unknown if not _NAMES_OF_OTHERS.fullmatch(name)}


def test_documents_quote_only_names_that_the_code_has():
    code = "".join(path.read_text(errors="replace") for path in texts() if path.suffix != ".md").lower()
    files = {f"/{path.relative_to(TOP)}" for path in texts()}
    documents = [path for pattern in _MANUALS for path in TOP.glob(pattern)]
    unknown = {path.name: unknown_names(path.read_text(), code, files) for path in documents}
    assert {name: names for name, names in unknown.items() if names} == {}


def test_documents_give_settings_their_new_names():
    written = {
        name
        for pattern in _MANUALS
        for path in TOP.glob(pattern)
        for name in re.findall(r"[A-Z_]{4,}", path.read_text())
    }
    assert written & set(RENAMED) == set()


@pytest.mark.parametrize(
    "quote", ["NO_SUCH_SETTING=1", "broadcast_no_such_total", "log.no_such_thing", "NoSuchClass", "no/such.py"]
)
def test_quoted_name_that_is_nowhere_is_found(quote: str):
    assert unknown_names(f"See `{quote}`.", "log broadcast_streams", {"/store/log.py"})
    assert not unknown_names(
        f"See `{quote}`.", "log no_such_setting broadcast_no_such no_such_thing nosuchclass", {"/no/such.py"}
    )


def test_nothing_names_a_list_that_is_not_in_the_repository():
    """Rows of tables that were kept elsewhere mean nothing to a reader."""
    elsewhere = re.compile(r"PARITY|\b(?:UX|STYLE|PROOF|DESIGN|STACK|HOUSE)\.md\b|contract\.md")
    named = [
        str(p.relative_to(TOP))
        for p in texts()
        if p.name != Path(__file__).name and elsewhere.search(p.read_text(errors="replace"))
    ]
    assert named == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("see docs/nowhere.md", "docs/nowhere.md does not exist"),
        ("see docs/why.md#no-such-place", "docs/why.md#no-such-place does not exist"),
        (
            "tests/unit/repository/test_docs.py::test_nothing_of_the_kind",
            "tests/unit/repository/test_docs.py::test_nothing_of_the_kind does not exist",
        ),
        ("[x](nowhere.md)", "the link to nowhere.md leads nowhere"),
        ("[x](#nowhere)", "the link to #nowhere leads nowhere"),
    ],
)
def test_mention_of_what_does_not_exist_is_found(tmp_path: Path, text: str, problem: str):
    (tmp_path / "page.md").write_text(text)
    assert problem in problems_of(tmp_path / "page.md")
