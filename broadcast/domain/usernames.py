"""How a username that somebody typed is read: the same for looking the person up and for counting attempts."""

import unicodedata

_MAX_CHARACTERS = 256  # characters; no username is longer than 64, and normalising costs time


def normalize_username(raw: str) -> str:
    """The username that `raw` means: without spaces around it, in one case, and compatible characters as one (NFKC)."""
    text = unicodedata.normalize("NFKC", raw.strip()[:_MAX_CHARACTERS]).casefold()
    return unicodedata.normalize("NFKC", text).strip()
