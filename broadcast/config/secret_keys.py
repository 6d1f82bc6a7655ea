"""Checks whether a cookie-signing key can be guessed. Anyone who guesses it can sign in as any user."""

MIN_KEY_CHARACTERS = 32
_MIN_DISTINCT_CHARACTERS = 8  # 32 random hexadecimal digits have fewer once in 28 million
_MIN_PERIOD_CHARACTERS = 16  # a repeated shorter text is no stronger than the text itself
_GUESSABLE_WORDS = (
    "changeme", "change-me", "change_me", "replaceme", "secret", "password", "passw0rd", "example", "insecure", "default",
    "keyboardcat", "placeholder", "development", "production", "broadcast", "qwerty", "abcdefgh", "0123456789", "1234567890",
)  # fmt: skip
# from the documentation of Flask and FastAPI, and the SHA-256 of the empty string: copied into many systems
_PUBLISHED_KEYS = (
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)


def find_weakness(key: str) -> str | None:
    """What is wrong with a key, as the end of a sentence about it; None if nothing is."""
    text = key.strip().casefold()
    if len(text) < MIN_KEY_CHARACTERS:
        return f"has fewer than {MIN_KEY_CHARACTERS} characters"
    if text in _PUBLISHED_KEYS or any(word in text.replace(" ", "") for word in _GUESSABLE_WORDS):
        return "holds a word or a row of digits that is tried first"
    if len(set(text)) < _MIN_DISTINCT_CHARACTERS or (text + text).find(text, 1) < _MIN_PERIOD_CHARACTERS:
        return "is the same few characters again and again"
    return None
