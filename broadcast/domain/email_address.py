"""E-mail addresses as they are stored and sent to."""

import re

MAX_CHARACTERS = 254  # RFC 5321: a path has 256, with its brackets
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def normalize_address(text: str) -> str:
    """The address with its domain in ASCII and lower case: `anna@bücher.example` becomes `anna@xn--bcher-kva.example`.

    Raises ValueError with a sentence for what is no address, or none that every mail server takes.
    """
    local_part, _, domain = text.strip().rpartition("@")
    try:
        domain = domain.encode("idna").decode().lower()
    except UnicodeError:
        domain = ""
    if not local_part.isascii() and _HOST.fullmatch(domain):
        raise ValueError("Letters outside A to Z are not allowed before the @: many mail servers refuse them.")
    address = f"{local_part}@{domain}"
    is_valid = len(local_part) <= 64 and len(address) <= MAX_CHARACTERS and _LOCAL_PART.fullmatch(local_part)
    if not is_valid or not _HOST.fullmatch(domain):
        raise ValueError("This is not an e-mail address. It should look like name@example.com.")
    return address
