"""Push messages to browsers (RFC 8030): encrypts one for a browser, and hands it to that browser's push service."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial

from sqlalchemy.orm import Session

from broadcast.base.app_parts import AppPart
from broadcast.base.numbers import parse_number
from broadcast.channels import outgoing_http, push_messages
from broadcast.channels.outgoing_http import AddressRefused, ConnectionPool, RequestFailed, Response
from broadcast.channels.protocol import Accepted, Gone, Message, Outcome, Refused, Retry
from broadcast.channels.push_encryption import encrypt
from broadcast.channels.vapid import VapidKey
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.message import Priority
from broadcast.domain.preferences import Preferences
from broadcast.domain.push_subscription import PushEndpoint, decode_key, is_endpoint_allowed
from broadcast.store import push_subscriptions
from broadcast.store.audiences import UserCondition
from broadcast.store.push_subscriptions import Browser

_MAX_RETRY_AFTER_SECONDS = 3600.0
_MAX_ANSWER_CHARACTERS = 120


class PushChannel:
    """The channel `push`. `post` is `outgoing_http.post`, except in tests."""

    name, label = "push", "Push"

    def __init__(self, settings: Settings, *, post: Callable[..., Response] = outgoing_http.post):
        self.key = VapidKey(settings)
        self._services = settings.push_services
        self._post = partial(post, pool=ConnectionPool())

    def has_address(self) -> UserCondition:
        return push_subscriptions.has_browser()

    def load_addresses(self, user_ids: Collection[int]) -> Mapping[int, Sequence[Browser]]:
        addresses: dict[int, list[Browser]] = {}
        for browser in push_subscriptions.list_browsers(user_ids):
            addresses.setdefault(browser.user_id, []).append(browser)
        return addresses

    def is_wanted(
        self, preferences: Preferences, *, priority: str, category: str | None, mandatory: Collection[str]
    ) -> bool:
        return preferences.wants_push(priority=priority, category=category, mandatory=mandatory)

    def disable_address(self, session: Session, user_id: int, address: Browser, reason: str, *, at: datetime) -> None:
        push_subscriptions.delete_row(session, address.id)

    def send(self, message: Message[Browser]) -> Outcome:
        """Send a broadcast to one browser."""
        card, now = message.card, clock.now()
        headers = push_messages.build_headers(card.id, card.priority, expires_at=card.expires_at, now=now)
        return self._send_content(message.address.endpoint, push_messages.build_content(card), headers)

    def send_correction(self, message: Message[Browser]) -> Outcome:
        """Replace the notification about a broadcast that was recalled."""
        card, now = message.card, clock.now()
        headers = push_messages.build_headers(card.id, card.priority, expires_at=None, now=now)
        return self._send_content(message.address.endpoint, push_messages.build_withdrawal(card), headers)

    def send_test(self, address: Browser, name: str) -> Outcome:
        headers = push_messages.build_headers(0, Priority.NORMAL, expires_at=None, now=clock.now())
        return self._send_content(address.endpoint, push_messages.build_test(name), headers)

    def _send_content(self, endpoint: PushEndpoint, content: bytes, headers: dict[str, str]) -> Outcome:
        if not is_endpoint_allowed(endpoint.url, more_services=self._services):
            return Refused("Its address is not that of a push service that is known here.")
        try:
            authorization = self.key.authorize(endpoint.url)
        except (OSError, ValueError) as problem:
            return Retry(f"The key that signs push messages cannot be used: {problem}", is_server_down=True)
        try:
            body = encrypt(content, decode_key(endpoint.p256dh), decode_key(endpoint.auth))
        except ValueError:
            return Refused("Its key is not valid.")
        try:
            answer = self._post(endpoint.url, body=body, headers=headers | {"Authorization": authorization})
        except AddressRefused as problem:
            return Refused(str(problem))
        except RequestFailed as problem:
            return Retry(str(problem))
        return _to_outcome(answer, clock.now())


def _to_outcome(answer: Response, now: datetime) -> Outcome:
    if 200 <= answer.status < 300:
        return Accepted()
    if answer.status in (404, 410):
        return Gone("The browser has ended its subscription.")
    sentence = f"Its push service answered {answer.status}{_quote(answer.body)}."
    if answer.status == 429 or answer.status >= 500:
        return Retry(sentence, after_seconds=_read_retry_after(answer.headers.get("retry-after", ""), now))
    return Refused(sentence)


def _read_retry_after(text: str, now: datetime) -> float | None:
    """Seconds: the header has them, or a time. None without a header that makes sense."""
    seconds: float | None = parse_number(text.strip())
    if seconds is None:
        try:
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
        except (ValueError, TypeError):  # no time, or one without a zone
            return None
    return min(max(seconds, 1.0), _MAX_RETRY_AFTER_SECONDS)


def _quote(body: bytes) -> str:
    text = body[: 4 * _MAX_ANSWER_CHARACTERS].decode(errors="replace")
    printable = "".join(character if character.isprintable() else " " for character in text)
    quoted = " ".join(printable.split())[:_MAX_ANSWER_CHARACTERS].rstrip(".")
    return f": {quoted}" if quoted else ""


PUSH = AppPart[PushChannel]("push")
