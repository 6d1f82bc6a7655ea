"""What changed between two texts: words within lines, in time that does not explode for texts made to be slow."""

import re
from difflib import SequenceMatcher
from typing import Literal, NamedTuple

_WORDS = re.compile(r"\s+|[^\s]+")
_MOST_WORDS = 600  # of a changed block; beyond that the block is shown as replaced
_MOST_LINES = 2000


class Part(NamedTuple):
    """A piece of text that both have, or only the old or the new one."""

    kind: Literal["same", "old", "new"]
    text: str


def parts(old: str, new: str) -> list[Part]:
    """The pieces in order: without those of kind "new" they are `old`, without "old" they are `new`."""
    lines, found = (old.splitlines(keepends=True), new.splitlines(keepends=True)), []
    if max(map(len, lines)) > _MOST_LINES:
        return _joined([Part("old", old), Part("new", new)])
    for tag, a, b, c, d in SequenceMatcher(None, *lines).get_opcodes():
        before, after = "".join(lines[0][a:b]), "".join(lines[1][c:d])
        found += [Part("same", before)] if tag == "equal" else _words(before, after)
    return _joined(found)


def _words(before: str, after: str) -> list[Part]:
    old, new = _WORDS.findall(before), _WORDS.findall(after)
    if max(len(old), len(new)) > _MOST_WORDS:
        return [Part("old", before), Part("new", after)]
    found = []
    for tag, a, b, c, d in SequenceMatcher(None, old, new).get_opcodes():
        if tag == "equal":
            found.append(Part("same", "".join(old[a:b])))
        else:
            found += [Part("old", "".join(old[a:b])), Part("new", "".join(new[c:d]))]
    return found


def _joined(found: list[Part]) -> list[Part]:
    whole: list[Part] = []
    for part in found:
        if part.text and whole and whole[-1].kind == part.kind:
            whole[-1] = Part(part.kind, whole[-1].text + part.text)
        elif part.text:
            whole.append(part)
    return whole
