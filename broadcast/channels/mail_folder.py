"""Mails as files, where no mail server is set: for trying the system out."""

from datetime import datetime
from email import message_from_bytes
from email.policy import SMTP
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

from broadcast.channels.protocol import Accepted, Outcome, Retry

MAX_FILES = 200  # the newest stay


class KeptMail(NamedTuple):
    """A mail in the folder."""

    to: str
    subject: str
    at: datetime
    text: str


class MailFolder:
    def __init__(self, path: Path):
        self.path = path

    def send(self, mail: bytes, sender: str, recipient: str, message_id: str) -> Outcome:
        """Write the mail; one with the same id is replaced."""
        path = self.path / f"{message_id}.eml"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = path.with_suffix(".new")
            temporary.write_bytes(mail)
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
