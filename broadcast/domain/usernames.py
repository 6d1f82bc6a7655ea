"""How a username that somebody typed is read: the same for looking the person up and for counting attempts."""

import unicodedata

_MOST_READ = 256  # characters; no username is longer than 64, and normalising costs time


def normalize(typed: str) -> str:
    """The username that `typed` means: without spaces around it, in one case, and compatible characters as one (NFKC)."""
    text = unicodedata.normalize("NFKC", typed.strip()[:_MOST_READ]).casefold()
    return unicodedata.normalize("NFKC", text).strip()
