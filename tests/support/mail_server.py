"""A real SMTP server, aiosmtpd, in a thread or as a process. It answers as a test tells it and keeps the mails."""

import sys
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from urllib.parse import quote

from aiosmtpd.controller import Controller

from tests.support.ports import find_free_port
from tests.support.servers import ServerProcess, make_self_signed_certificate


class MailServer:
    """`answer_recipient` and `answer_mail` return what the server answers, for an address and for a mail; None accepts."""

    def __init__(self):
        self.port = find_free_port()
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.answer_recipient: Callable[[str], str | None] = lambda address: None
        self.answer_mail: Callable[[EmailMessage], str | None] = lambda mail: None
        self._controller: Controller | None = None

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?starttls=no"

    def start(self) -> None:
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port, data_size_limit=2**22)
        self._controller.start()

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def __enter__(self) -> "MailServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802 - aiosmtpd's name
        if refusal := self.answer_recipient(address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802 - aiosmtpd's name
        mail = message_from_bytes(envelope.content, policy=SMTP)
        if refusal := self.answer_mail(mail):
            return refusal
        self.mails.append(mail)
        self.recipients += envelope.rcpt_tos
        return "250 OK"


class MailServerProcess(ServerProcess):
    """`tls` is "none", "starttls" or "implicit". For TLS, SSL_CERT_FILE must name `certificate`."""

    def __init__(self, folder: Path, tls: str = "none", password: str = ""):
        self.folder, port, username = folder / "mails", find_free_port(), "broadcast@example.com"
        self.folder.mkdir(parents=True)
        self.certificate, key = ("", "") if tls == "none" else make_self_signed_certificate(folder / "tls")
        login = f"{quote(username)}:{quote(password, safe='')}@" if password else ""
        scheme, option = "smtps" if tls == "implicit" else "smtp", "?starttls=no" if tls == "none" else ""
        self.url = f"{scheme}://{login}localhost:{port}{option}"
        program = Path(__file__).parent / "smtp_process.py"
        words = [sys.executable, program, self.folder, port, tls, self.certificate, key, username, password]
        super().__init__(list(map(str, words)), port, folder / "log.txt")

    def read_mails(self) -> list[EmailMessage]:
        paths = sorted(self.folder.glob("*.eml"))
        return [message_from_bytes(path.read_bytes(), policy=SMTP) for path in paths]

    def answer_once(self, address: str, reply: str) -> None:
        """Answer the next mail to that address with a reply, such as `450 Later`."""
        (self.folder / f"{address}.answer").write_text(reply)
