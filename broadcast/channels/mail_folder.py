"""Mails as files, where no mail server is set: for trying the system out."""

import re
from datetime import datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

from broadcast.channels.protocol import Accepted, Outcome, Retry
from broadcast.domain import clock

MAX_FILES = 200  # the newest stay
_UNSAFE = re.compile(r"[^A-Za-z0-9.@_-]")


class KeptMail(NamedTuple):
    """A mail in the folder."""

    to: str
    subject: str
    at: datetime
    text: str


class MailFolder:
    def __init__(self, path: Path):
        self.path = path

    def send(self, mail: EmailMessage, sender: str, recipient: str) -> Outcome:
        """Write the mail; one with the same Message-ID is replaced."""
        name = mail["Message-ID"].strip("<>") if mail["Message-ID"] else f"{clock.now():%Y%m%dT%H%M%S%f}-{recipient}"
        path = self.path / f"{_UNSAFE.sub('_', name)}.eml"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(".new")
            temporary.write_bytes(mail.as_bytes())
            temporary.replace(path)
            for old_path in self._list_paths()[MAX_FILES:]:
                old_path.unlink(missing_ok=True)
        except OSError as problem:
            return Retry(f"The mail could not be written into {self.path}: {problem.strerror}.", is_server_down=True)
        return Accepted()

    def list_newest(self, limit: int) -> list[KeptMail]:
        return [_read_mail(path.read_bytes()) for path in self._list_paths()[:limit]]

    def _list_paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.path.glob("*.eml"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _read_mail(content: bytes) -> KeptMail:
    mail = message_from_bytes(content, policy=SMTP)
    text = mail.get_body(("plain",)).get_content()
    return KeptMail(str(mail["To"]), str(mail["Subject"]), parsedate_to_datetime(str(mail["Date"])), text)
