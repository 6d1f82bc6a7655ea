"""Settings of push messages to browsers. Part of `config.settings.Settings`."""

import base64
import binascii
import re
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from broadcast.config.validation import CommaSeparated

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?::([1-9]\d{0,4}))?")
VAPID_KEY_BYTES = 32


class PushSettings(BaseModel):
    """Fields, and checks of their values."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    vapid_private_key: str | None = Field(None, repr=False)
    """Key that signs push messages, the same on all nodes: 32 bytes in base64url, as in the file `vapid_key`. Without it, that file in `DATA_DIR`, made when it is first needed."""
    push_services: CommaSeparated = []
    """Hosts of push services besides those of Chrome, Edge, Firefox and Safari, comma-separated, like `push.example.com` or `push.example.com:8443`."""

    def check_push(self) -> Iterator[str]:
        """One sentence per value that cannot work. None contains the key."""
        if self.vapid_private_key and decode_vapid_key(self.vapid_private_key) is None:
            yield "VAPID_PRIVATE_KEY: must be 32 bytes in base64url, 43 characters, as in the file vapid_key of a node."
        for host in self.push_services:
            match = _HOST.fullmatch(host)
            if not match or int(match[1] or 1) > 65535:
                yield f"PUSH_SERVICES: {host!r} is not a host; write it in lower case, like push.example.com:8443."


def decode_vapid_key(text: str) -> bytes | None:
    """The bytes of a key as the setting and the file have it; None for any other text."""
    try:
        key = base64.b64decode(text.strip().rstrip("=") + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == VAPID_KEY_BYTES and any(key) else None
