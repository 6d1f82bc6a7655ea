"""E-mail: builds the mails, and hands them to the server or to a folder."""

import binascii
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr, parseaddr
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import gevent
from flask import Flask
from sqlalchemy.orm import Session

from broadcast.base.app_parts import AppPart
from broadcast.channels.links import Links
from broadcast.channels.mail_folder import MailFolder
from broadcast.channels.protocol import Message, Outcome, Retry
from broadcast.channels.smtp import SmtpTransport
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.card import Card
from broadcast.domain.message import Priority
from broadcast.domain.preferences import Preferences
from broadcast.store import email_addresses
from broadcast.store.audiences import UserCondition

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_NOTICE_TIMEOUT_SECONDS = 20.0  # somebody waits for it at a page
_IMPORTANT_HEADERS = {"Importance": "high", "X-Priority": "1 (Highest)", "Priority": "urgent"}
_CACHED_BROADCASTS = 4
_MAX_DIGEST_CHARACTERS = 400  # of each message: a mail of many is skimmed, and links to the whole
_SOFT_BREAK = b"=\r\n"  # ends a line of quoted-printable text, but not the text's own


class MailTransport(Protocol):
    """Where mails go."""

    def send(self, mail: bytes, sender: str, recipient: str, message_id: str) -> Outcome: ...


class _PreparedMail(NamedTuple):
    """What is the same for all recipients of a broadcast: headers, and the body before and after each link to unsubscribe.

    The package email takes 5 ms to build a mail, in which a worker writes to no stream; with this it is 0.1 ms.
    """

    headers: bytes
    body_parts: Sequence[bytes]

    def build_body(self, unsubscribe_url: str) -> bytes:
        return (_SOFT_BREAK + _encode_quoted_printable(unsubscribe_url) + _SOFT_BREAK).join(self.body_parts)


class EmailChannel:
    """The channel `email`. `folder` is where mails are kept as files when there is no server, else None."""

    name, label = "email", "E-mail"

    def __init__(self, app: Flask, settings: Settings):
        keys = [*reversed(settings.secret_key_fallbacks), app.secret_key]
        self.links = Links(settings.link_base, keys)
        self.folder = None if settings.smtp_server else MailFolder(settings.data_dir / "mail")
        self._transport: MailTransport = self.folder or SmtpTransport(settings.smtp_server)
        self._sender_name, self._sender = parseaddr(settings.email_from or "broadcast@localhost")
        self._app_name, self._templates = settings.app_name, app.jinja_env
        self._get_prepared = lru_cache(_CACHED_BROADCASTS)(self._prepare)

    def has_address(self) -> UserCondition:
        return email_addresses.has_working_address()

    def load_addresses(self, user_ids: Collection[int]) -> Mapping[int, Sequence[str]]:
        return {user_id: [address] for user_id, address in email_addresses.load_working(user_ids).items()}

    def is_wanted(
        self, preferences: Preferences, *, priority: str, category: str | None, mandatory: Collection[str]
    ) -> bool:
        return preferences.wants_email(priority=priority, category=category, mandatory=mandatory)

    def disable_address(self, session: Session, user_id: int, address: str, reason: str, *, at: datetime) -> None:
        email_addresses.mark_failing(session, user_id, address, reason, at=at)

    def send(self, message: Message[str]) -> Outcome:
        """Send a broadcast to one user."""
        return self._transport.send(self.build_mail(message), self._sender, message.address, message.id)

    def send_correction(self, message: Message[str]) -> Outcome:
        """Tell one user that a broadcast that was sent to them was recalled. The mail is a reply to that one."""
        mail = self.build_mail(message, "correction")
        return self._transport.send(mail, self._sender, message.address, message.id)

    def send_digest(
        self, message_id: str, user_id: int, name: str, address: str, cards: Sequence[Card], *, more: int
    ) -> Outcome:
        """Send one mail about many broadcasts; `more` are unread besides."""
        unsubscribe_url = self.links.build_unsubscribe_url(user_id, "digest")
        count, mail = len(cards) + more, EmailMessage(policy=SMTP)
        subject = cards[0].title if count == 1 else f"{count} unread messages in {self._app_name}"
        self._set_headers(mail, subject, self._sender_name or self._app_name)
        mail["Message-ID"] = self._format_id(message_id)
        mail["MIME-Version"] = "1.0"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
        values = {
            "cards": cards,
            "more": more,
            "links": self.links,
            "max_characters": _MAX_DIGEST_CHARACTERS,
            "unsubscribe_url": unsubscribe_url,
        }
        text, html = (self._render("digest", kind, **values) for kind in ("txt", "html"))
        content_type, [body] = _encode_alternatives(text, html, mark=secrets.token_hex(16))
        headers = _encode_recipient(clean_header(name), address) + f"List-Unsubscribe: <{unsubscribe_url}>\r\n".encode()
        content = headers + _encode_headers(mail) + content_type + body
        return self._transport.send(content, self._sender, address, message_id)

    def compile_templates(self) -> None:
        """Compile what the first mail would wait for, and every stream of the worker with it: 0.2 s. For a thread."""
        for template in self._templates.list_templates(filter_func=lambda name: name.startswith("mail/")):
            self._templates.get_template(template)

    def send_confirmation(self, user_id: int, address: str) -> Outcome:
        """Send the link that proves that this address is the user's."""
        url = self.links.build_confirm_url(user_id, address)
        return self._send_notice("confirm", f"Confirm your address for {self._app_name}", address, url=url)

    def send_test(self, address: str, name: str) -> Outcome:
        """Send a mail that only shows that mails arrive."""
        return self._send_notice("test", f"A test from {self._app_name}", address, name=name)

    def _send_notice(self, template: str, subject: str, address: str, **values: Any) -> Outcome:
        mail, message_id = EmailMessage(policy=SMTP), secrets.token_hex(16)
        self._set_headers(mail, subject, self._sender_name or self._app_name)
        mail["To"] = Address(addr_spec=address)
        mail["Message-ID"] = self._format_id(message_id)
        mail.set_content(self._render(template, "txt", **values))
        mail.add_alternative(self._render(template, "html", **values), subtype="html")
        with gevent.Timeout(_NOTICE_TIMEOUT_SECONDS, False):
            return self._transport.send(mail.as_bytes(), self._sender, address, message_id)
        return Retry("The mail server did not answer in time.", is_server_down=True)

    def build_mail(self, message: Message[str], template: str = "broadcast") -> bytes:
        """The mail about a broadcast: all of its content, and links to read, acknowledge and unsubscribe. Or the
        "correction" that follows a recall.
        """
        prepared = self._get_prepared(message.card, template)
        unsubscribe_url = self.links.build_unsubscribe_url(message.user_id)
        own_headers = f"Message-ID: {self._format_id(message.id)}\r\nList-Unsubscribe: <{unsubscribe_url}>\r\n"
        headers = _encode_recipient(clean_header(message.name), message.address) + own_headers.encode()
        if template == "correction":
            headers += f"In-Reply-To: {self._format_id(message.id.rpartition('.r')[0])}\r\n".encode()
        return headers + prepared.headers + prepared.build_body(unsubscribe_url)

    def _prepare(self, card: Card, template: str) -> _PreparedMail:
        mail, mark = EmailMessage(policy=SMTP), secrets.token_hex(16)
        subject = f"Recalled: {card.title}" if template == "correction" else card.title
        self._set_headers(mail, subject, f"{card.sender_name} ({self._app_name})")
        mail["MIME-Version"] = "1.0"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
        if card.priority == Priority.URGENT:
            for name, value in _IMPORTANT_HEADERS.items():
                mail[name] = value
        values = {
            "card": card,
            "message_url": self.links.build_message_url(card.id),
            "preferences_url": self.links.build_preferences_url(),
            "unsubscribe_url": mark,
        }
        text, html = (self._render(template, kind, **values) for kind in ("txt", "html"))
        content_type, body = _encode_alternatives(text, html, mark)
        return _PreparedMail(_encode_headers(mail) + content_type, body)

    def _set_headers(self, mail: EmailMessage, subject: str, sender_name: str) -> None:
        mail["Subject"] = clean_header(subject)
        mail["From"] = Address(clean_header(sender_name), addr_spec=self._sender)
        mail["Date"] = format_datetime(clock.now())
        mail["Auto-Submitted"] = "auto-generated"  # no vacation replies (RFC 3834)

    def _format_id(self, message_id: str) -> str:
        return f"<{message_id}@{self._sender.rpartition('@')[2]}>"

    def _render(self, template: str, kind: str, **values: Any) -> str:
        return self._templates.get_template(f"mail/{template}.{kind}").render(app_name=self._app_name, **values)


def clean_header(text: str) -> str:
    """The text in one line, and as it stands: what would begin another header becomes a space, and `=?` does not begin
    an encoded word, which could hold a line break.
    """
    return _UNPRINTABLE.sub(" ", text).replace("=?", "= ?").strip()


def _encode_headers(mail: EmailMessage) -> bytes:
    return mail.as_bytes().rstrip(b"\r\n") + b"\r\n"


def _encode_recipient(name: str, address: str) -> bytes:
    """The header To. Only names outside ASCII need the package email, which takes 0.5 ms."""
    if name.isascii():
        return f"To: {formataddr((name, address))}\r\n".encode()
    mail = EmailMessage(policy=SMTP)
    mail["To"] = Address(name, addr_spec=address)
    return _encode_headers(mail)


def _encode_alternatives(text: str, html: str, mark: str) -> tuple[bytes, list[bytes]]:
    """The header Content-Type, and the body of a mail in both forms: what comes before, between and after each `mark`."""
    boundary = secrets.token_hex(16)
    parts = [b"\r\n"]
    for kind, content in (("plain", text), ("html", html)):
        headers = f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        first, *others = map(_encode_quoted_printable, ("\n".join(content.splitlines()) + "\n").split(mark))
        parts[-1] += f"--{boundary}\r\n{headers}".encode() + first
        parts += others
    parts[-1] += f"--{boundary}--\r\n".encode()
    return f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n'.encode(), parts


def _encode_quoted_printable(text: str) -> bytes:
    """As lines of at most 76 characters that end in CRLF (RFC 2045), with room for a soft break at the end."""
    encoded = binascii.b2a_qp(text.encode(errors="replace"), istext=True)
    return encoded.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


EMAIL = AppPart[EmailChannel]("email")
