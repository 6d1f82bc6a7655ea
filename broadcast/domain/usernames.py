"""Normalizes typed usernames, the same for looking up the user and for counting attempts."""

import unicodedata

_MAX_CHARACTERS = 256  # no username is longer than 64, and normalizing costs time


def normalize_username(raw: str) -> str:
    """`raw` without surrounding spaces, case-folded, and with compatible characters unified (NFKC)."""
    text = unicodedata.normalize("NFKC", raw.strip()[:_MAX_CHARACTERS]).casefold()
    return unicodedata.normalize("NFKC", text).strip()
