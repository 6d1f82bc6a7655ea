"""Which characters are visible: a text of only spaces, joiners and fillers is blank, however long it is."""

import unicodedata

# White space, controls, format characters, surrogates, and combining marks
_INVISIBLE_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Mn", "Mc", "Me"})
# Letters and symbols without a glyph, which no category identifies: the Hangul fillers, the object replacement
# character, the blank Braille pattern, and the null note head of music.
_INVISIBLE_CHARACTERS = frozenset("\u115f\u1160\u3164\uffa0\ufffc\u2800\U0001d159")


def is_blank(text: str) -> bool:
    """Whether `text` has no visible characters. Characters newer than Python's Unicode count as visible."""
    return all(
        character in _INVISIBLE_CHARACTERS
        or unicodedata.category(character) in _INVISIBLE_CATEGORIES
        or _is_default_ignorable(ord(character))
        for character in text
    )


def to_single_line(text: str) -> str:
    """The text as one line, of characters that can be printed: what a server answered, for pages and the database."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())


def _is_default_ignorable(code_point: int) -> bool:
    """Unassigned code points that are ignored by default (Unicode, DerivedCoreProperties), and noncharacters."""
    return (
        code_point == 0x2065
        or 0xFFF0 <= code_point <= 0xFFF8
        or 0xE0000 <= code_point <= 0xE0FFF
        or 0xFDD0 <= code_point <= 0xFDEF
        or code_point & 0xFFFE == 0xFFFE
    )
