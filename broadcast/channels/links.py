"""Links in mails, and the signed tokens by which they work without a session."""

from collections.abc import Sequence

from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer

CONFIRMATION_SECONDS = 24 * 3600
_UNSUBSCRIBE_SALT, _CONFIRM_SALT = "email-unsubscribe", "email-confirm"


class Links:
    """`base` is the address of this system. `keys` are the secret keys, the newest last: older ones only verify."""

    def __init__(self, base: str, keys: Sequence[str]):
        self._base = base
        self._unsubscribe_tokens = URLSafeSerializer(list(keys), salt=_UNSUBSCRIBE_SALT)
        self._confirm_tokens = URLSafeTimedSerializer(list(keys), salt=_CONFIRM_SALT)

    def build_message_url(self, broadcast_id: int) -> str:
        return f"{self._base}/inbox/{broadcast_id}"

    def build_preferences_url(self) -> str:
        return f"{self._base}/preferences"

    def build_inbox_url(self) -> str:
        return f"{self._base}/inbox"

    def build_unsubscribe_url(self, user_id: int, what: str = "email") -> str:
        """From all "email", or from the "digest". Valid for good: a mail may be read years later."""
        value = user_id if what == "email" else [user_id, what]
        return f"{self._base}/email/unsubscribe/{self._unsubscribe_tokens.dumps(value)}"

    def build_confirm_url(self, user_id: int, address: str) -> str:
        return f"{self._base}/email/confirm/{self._confirm_tokens.dumps([user_id, address])}"

    def read_unsubscribe_token(self, token: str) -> tuple[int, str] | None:
        """The user id, and "email" or "digest"; None for any other text."""
        try:
            value = self._unsubscribe_tokens.loads(token)
        except BadSignature:
            return None
        return (value, "email") if isinstance(value, int) else tuple(value)

    def read_confirm_token(self, token: str) -> tuple[int, str] | None:
        """The user id and the address; None for any other text, and after a day."""
        try:
            user_id, address = self._confirm_tokens.loads(token, max_age=CONFIRMATION_SECONDS)
        except BadSignature:
            return None
        return user_id, address
