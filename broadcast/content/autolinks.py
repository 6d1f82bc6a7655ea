"""Finds addresses in plain text to turn into links: http and https, hosts of well-known domains, and mail.

Replaces linkify-it, whose patterns take time quadratic in the length of a word: seconds for 2,000 characters. These
read each character a fixed number of times: a candidate begins only where no part of another one precedes it, and the
quantifiers are possessive (`++`, `*+`).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_ADDRESS_CHARACTERS = 2000  # the same as for a button's URL
_MAX_HOST_CHARACTERS = 253  # RFC 1035
_HOST_LABEL = r"\w++(?:-++\w++)*+"
# As in linkify-it: without a scheme, `notes.txt` must not count as a host
_WELL_KNOWN_TLDS = "biz|com|edu|gov|net|org|pro|web|xxx|aero|asia|coop|info|museum|name|shop|рф|[a-z]{2}"
_ADDRESS_PATTERN = re.compile(
    rf"""(?<![\w@/.:+-])
    (?: (?P<scheme>https?://) (?:[^\s@/?\#<>()\[\]"]{{1,50}}+@)?+ (?P<host>(?:{_HOST_LABEL}\.)*+{_HOST_LABEL})
      | (?P<mail>(?:mailto:)?+[\w+-]++(?:\.[\w+-]++)*+) @ (?P<at>(?:{_HOST_LABEL}\.)++[^\W\d]{{2,63}})
      | (?P<www>www\.(?:{_HOST_LABEL}\.)*+{_HOST_LABEL})
      | (?P<bare>(?:{_HOST_LABEL}\.)++) (?:{_WELL_KNOWN_TLDS})
    )
    (?![\w@-]|\.\w)
    (?P<rest>(?::\d{{1,5}}+(?!\w))?+(?:[/?\#][^\s<>"|]*+)?+)""",
    re.IGNORECASE | re.VERBOSE,
)
_TRAILING_PUNCTUATION = "?!.,:;*_~'([{"
_BRACKET_PAIRS = {")": "(", "]": "[", "}": "{"}


class Address(NamedTuple):
    """An address in a text, from `index` to `last_index`, and its URL. markdown-it expects these field names."""

    url: str
    text: str
    index: int
    last_index: int
    schema: str


def find_addresses(text: str) -> Iterator[Address]:
    """The addresses in `text`, in order, in linear time."""
    position = 0
    while (match := _ADDRESS_PATTERN.search(text, position)) is not None:
        position = match.end()
        if (address := _parse_address(match)) is not None:
            position = address.last_index
            yield address


def match_address_at_start(text: str) -> Address | None:
    """The address with a scheme that `text` begins with."""
    match = _ADDRESS_PATTERN.match(text)
    return _parse_address(match) if match and match["scheme"] else None


def _parse_address(match: re.Match[str]) -> Address | None:
    start, end = match.span()
    if match["mail"]:  # whatever follows the host of a mail address is text
        end = match.end("at")
    else:
        end = start + _get_trimmed_length(match[0], match.start("rest") - start)
    text = match.string[start:end]
    host = match["host"] or match["at"] or match["www"] or match["bare"]
    is_mail_too_long = match["mail"] and len(match["mail"]) > 71
    if len(text) > MAX_ADDRESS_CHARACTERS or len(host) > _MAX_HOST_CHARACTERS or is_mail_too_long:
        return None
    if match["scheme"]:
        return Address(text, text, start, end, match["scheme"][:-2].lower())
    if match["mail"]:
        has_scheme = text[:7].lower() == "mailto:"
        return Address(text if has_scheme else f"mailto:{text}", text, start, end, "mailto:")
    return Address(f"http://{text}", text, start, end, "")


def _get_trimmed_length(text: str, min_length: int) -> int:
    """The length of an address without the punctuation and unmatched closing brackets that follow it."""
    unmatched = {closing: text.count(opening) - text.count(closing) for closing, opening in _BRACKET_PAIRS.items()}
    end = len(text)
    while end > min_length:
        last_character = text[end - 1]
        if last_character in _BRACKET_PAIRS and unmatched[last_character] < 0:
            unmatched[last_character] += 1
        elif last_character not in _TRAILING_PUNCTUATION:
            break
        end -= 1
    return end
