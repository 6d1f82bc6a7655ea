"""Whole numbers written as text: ids, positions and counts of a URL, a form or a command line."""

_MAX_DIGITS = 18  # fits into 63 bits


def parse_number(text: str | None, *, max_digits: int = _MAX_DIGITS) -> int | None:
    """The number that consists of these ASCII digits, at most `max_digits`; None for any other text."""
    is_number = text and text.isascii() and text.isdigit() and len(text) <= max_digits
    return int(text) if is_number else None
