"""References in code, documentation and tests exist: files, and anchors in documents."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[3]
_TEXTS = (".py", ".md", ".html", ".js", ".css", ".toml", ".yml", ".yaml", ".json", ".sh", ".txt", ".conf", ".ini")
_NOT_OURS = {".git", ".venv", "node_modules", "vendor", "shared", "instance", "data", "__pycache__", ".ruff_cache"}
_OURS = ("docs", "tests", "deploy", "static", "templates", "bench", "broadcast", "migrations")
# a path that begins with a folder of ours and ends like a file or a folder of ours
_PATH = re.compile(rf"(?<![\w./:@<-])((?:{'|'.join(_OURS)})/[\w./-]*\w/?)(?:::(test_\w+))?(?:#([\w-]+))?")
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
