"""E-mail: builds the mails, and hands them to the server or to a folder."""

import re
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Any, Protocol

import gevent
from flask import Flask

from broadcast.base.app_parts import AppPart
from broadcast.channels.links import Links
from broadcast.channels.mail_folder import MailFolder
from broadcast.channels.protocol import Message, Outcome, Retry
from broadcast.channels.smtp import SmtpTransport
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.message import Priority

_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
_NOTICE_TIMEOUT_SECONDS = 20.0  # somebody waits for it at a page
_IMPORTANT_HEADERS = {"Importance": "high", "X-Priority": "1 (Highest)", "Priority": "urgent"}


class MailTransport(Protocol):
    """Where mails go."""

    def send(self, mail: EmailMessage, sender: str, recipient: str) -> Outcome: ...


class EmailChannel:
    """The channel `email`. `folder` is where mails are kept as files when there is no server, else None."""

    name = "email"

    def __init__(self, app: Flask, settings: Settings):
        keys = [*reversed(settings.secret_key_fallbacks), app.secret_key]
        self.links = Links(settings.link_base, keys)
        self.folder = None if settings.smtp_server else MailFolder(settings.data_dir / "mail")
        self._transport: MailTransport = self.folder or SmtpTransport(settings.smtp_server)
        self._sender_name, self._sender = parseaddr(settings.email_from or "broadcast@localhost")
        self._app_name, self._templates = settings.app_name, app.jinja_env

    def send(self, message: Message) -> Outcome:
        """Send a broadcast to one user."""
        return self._transport.send(self.build_mail(message), self._sender, message.address)

    def send_confirmation(self, user_id: int, address: str) -> Outcome:
        """Send the link that proves that this address is the user's."""
        url = self.links.build_confirm_url(user_id, address)
        return self._send_notice("confirm", f"Confirm your address for {self._app_name}", address, url=url)

    def send_test(self, address: str, name: str) -> Outcome:
        """Send a mail that only shows that mails arrive."""
        return self._send_notice("test", f"A test from {self._app_name}", address, name=name)

    def _send_notice(self, template: str, subject: str, address: str, **values: Any) -> Outcome:
        mail = self._start_mail(subject, self._sender_name or self._app_name, "", address)
        self._set_bodies(mail, template, values)
        with gevent.Timeout(_NOTICE_TIMEOUT_SECONDS, False):
            return self._transport.send(mail, self._sender, address)
        return Retry("The mail server did not answer in time.", is_server_down=True)

    def build_mail(self, message: Message) -> EmailMessage:
        """The mail about a broadcast: all of its content, and links to read, acknowledge and unsubscribe."""
        card, unsubscribe_url = message.card, self.links.build_unsubscribe_url(message.user_id)
        mail = self._start_mail(card.title, f"{card.sender_name} ({self._app_name})", message.name, message.address)
        mail["Message-ID"] = f"<{message.id}@{self._sender.rpartition('@')[2]}>"
        mail["List-Unsubscribe"] = f"<{unsubscribe_url}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"  # RFC 8058
        if card.priority == Priority.URGENT:
            for name, value in _IMPORTANT_HEADERS.items():
                mail[name] = value
        values = {
            "card": card,
            "message_url": self.links.build_message_url(card.id),
            "preferences_url": self.links.build_preferences_url(),
            "unsubscribe_url": unsubscribe_url,
        }
        self._set_bodies(mail, "broadcast", values)
        return mail

    def _start_mail(self, subject: str, sender_name: str, name: str, address: str) -> EmailMessage:
        mail = EmailMessage(policy=SMTP)
        mail["Subject"] = clean_header(subject)
        mail["From"] = Address(clean_header(sender_name), addr_spec=self._sender)
        mail["To"] = Address(clean_header(name), addr_spec=address)
        mail["Date"] = format_datetime(clock.now())
        mail["Auto-Submitted"] = "auto-generated"  # no vacation replies (RFC 3834)
        return mail

    def _set_bodies(self, mail: EmailMessage, template: str, values: dict[str, Any]) -> None:
        text, html = (
            self._templates.get_template(f"mail/{template}.{kind}").render(app_name=self._app_name, **values)
            for kind in ("txt", "html")
        )
        mail.set_content(text)
        mail.add_alternative(html, subtype="html")


def clean_header(text: str) -> str:
    """The text in one line, and as it stands: what would begin another header becomes a space, and `=?` does not begin
    an encoded word, which could hold a line break.
    """
    return _UNPRINTABLE.sub(" ", text).replace("=?", "= ?").strip()


EMAIL = AppPart[EmailChannel]("email")
