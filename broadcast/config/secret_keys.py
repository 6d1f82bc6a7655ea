"""Whether a key that signs cookies can be guessed. Whoever guesses it is anybody they like."""

MIN_KEY_CHARACTERS = 32  # characters
_MIN_DISTINCT_CHARACTERS = 8  # 32 random hexadecimal digits have fewer once in some millions of millions
_MIN_PERIOD_CHARACTERS = 16  # a shorter text, again and again, is no longer than itself
_GUESSABLE_WORDS = (
    *(
        "changeme",
        "change-me",
        "change_me",
        "replaceme",
        "secret",
        "password",
        "passw0rd",
        "example",
        "insecure",
        "default",
    ),
    *(
        "keyboardcat",
        "placeholder",
        "development",
        "production",
        "broadcast",
        "qwerty",
        "abcdefgh",
        "0123456789",
        "1234567890",
    ),
)
# from the documentation of Flask and of FastAPI, and the SHA-256 of nothing: copied into many systems
_PUBLISHED_KEYS = (
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)


def find_weakness(key: str) -> str | None:
    """What is wrong with it, as the end of a sentence about it; None when nothing is."""
    text = key.strip().casefold()
    if len(text) < MIN_KEY_CHARACTERS:
        return f"has fewer than {MIN_KEY_CHARACTERS} characters"
    if text in _PUBLISHED_KEYS or any(word in text.replace(" ", "") for word in _GUESSABLE_WORDS):
        return "holds a word or a row of digits that is tried first"
    if len(set(text)) < _MIN_DISTINCT_CHARACTERS or (text + text).find(text, 1) < _MIN_PERIOD_CHARACTERS:
        return "is the same few characters again and again"
    return None
