"""Addresses in plain text that become links by themselves: http and https, hosts of well-known domains, and mail.

Written here because the patterns of linkify-it take time that grows with the square of a word: seconds for 2,000 characters.
These read each character a fixed number of times. A candidate begins only where no part of another one stands before it, and
whatever a part of a pattern has read it does not give back (`++`, `*+`).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

LONGEST = 2000  # characters, as of the address of a button
_LONGEST_HOST = 253  # RFC 1035
_LABEL = r"\w++(?:-++\w++)*+"
# As linkify-it has them: without a scheme, `notes.txt` must not be taken for a host
_WELL_KNOWN = "biz|com|edu|gov|net|org|pro|web|xxx|aero|asia|coop|info|museum|name|shop|рф|[a-z]{2}"
_ADDRESS = re.compile(
    rf"""(?<![\w@/.:+-])
    (?: (?P<scheme>https?://) (?:[^\s@/?\#<>()\[\]"]{{1,50}}+@)?+ (?P<host>(?:{_LABEL}\.)*+{_LABEL})
      | (?P<mail>(?:mailto:)?+[\w+-]++(?:\.[\w+-]++)*+) @ (?P<at>(?:{_LABEL}\.)++[^\W\d]{{2,63}})
      | (?P<www>www\.(?:{_LABEL}\.)*+{_LABEL})
      | (?P<bare>(?:{_LABEL}\.)++) (?:{_WELL_KNOWN})
    )
    (?![\w@-]|\.\w)
    (?P<rest>(?::\d{{1,5}}+(?!\w))?+(?:[/?\#][^\s<>"|]*+)?+)""",
    re.IGNORECASE | re.VERBOSE,
)
_TRAILING = "?!.,:;*_~'([{"
_CLOSING = {")": "(", "]": "[", "}": "{"}


class Address(NamedTuple):
    """A part of a text, from `index` to `last_index`, and where it leads; the names are those that markdown-it asks for."""

    url: str
    text: str
    index: int
    last_index: int
    schema: str


def find(text: str) -> Iterator[Address]:
    """The addresses in `text`, in order; in linear time."""
    at = 0
    while (found := _ADDRESS.search(text, at)) is not None:
        at = found.end()
        if (address := _read(found)) is not None:
            at = address.last_index
            yield address


def at_start(text: str) -> Address | None:
    """The address with a scheme with which `text` begins."""
    found = _ADDRESS.match(text)
    return _read(found) if found and found["scheme"] else None


def _read(found: re.Match[str]) -> Address | None:
    start, end = found.span()
    if found["mail"]:  # what follows the host of a mail address is text
        end = found.end("at")
    else:
        end = start + _without_trailing(found[0], found.start("rest") - start)
    text = found.string[start:end]
    host = found["host"] or found["at"] or found["www"] or found["bare"]
    if len(text) > LONGEST or len(host) > _LONGEST_HOST or (found["mail"] and len(found["mail"]) > 71):
        return None
    if found["scheme"]:
        return Address(text, text, start, end, found["scheme"][:-2].lower())
    if found["mail"]:
        is_whole = text[:7].lower() == "mailto:"
        return Address(text if is_whole else f"mailto:{text}", text, start, end, "mailto:")
    return Address(f"http://{text}", text, start, end, "")


def _without_trailing(text: str, shortest: int) -> int:
    """The length of an address without the punctuation, and the brackets of its sentence, that stand behind it."""
    open_left = {close: text.count(open_) - text.count(close) for close, open_ in _CLOSING.items()}
    end = len(text)
    while end > shortest:
        last = text[end - 1]
        if last in _CLOSING and open_left[last] < 0:
            open_left[last] += 1
        elif last not in _TRAILING:
            break
        end -= 1
    return end
