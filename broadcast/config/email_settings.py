"""Settings of e-mail. Part of `config.settings.Settings`."""

from collections.abc import Iterator
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field

_DEFAULT_PORTS = {"smtp": 587, "smtps": 465}


def _is_address(text: str) -> bool:
    try:
        return bool(Address(addr_spec=text).domain)
    except (ValueError, LookupError, MessageError):
        return False


class SmtpServer(NamedTuple):
    """Where mail is handed over. `tls` is "starttls", "implicit" or "none"."""

    host: str
    port: int
    tls: str
    username: str
    password: str


class EmailSettings(BaseModel):
    """Fields, and checks of their values and combinations."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    email_url: str | None = Field(None, repr=False)
    """Mail server: `smtp://user:password@host:587` (STARTTLS) or `smtps://…:465`; `?starttls=no` for a relay without TLS. Without it, mails are files in `DATA_DIR/mail`."""
    email_from: str | None = None
    """Address that mails come from, like `broadcast@example.com`."""
    email_per_minute: int = Field(0, ge=0, le=1_000_000)
    """Most mails a minute, of all workers on all nodes together, for a mail server with a limit. 0: as fast as it takes them."""
    public_url: str | None = Field(None, pattern=r"^https?://[^/?#\s]+$")
    """Address of this system in links of mails, like `https://broadcast.example.com`; without it, `HOST` and `PORT`."""

    @property
    def smtp_server(self) -> SmtpServer | None:
        """The server of EMAIL_URL; None without it. Raises ValueError with a sentence."""
        if not self.email_url:
            return None
        url = urlsplit(self.email_url)
        options = dict(parse_qsl(url.query, keep_blank_values=True))
        if url.scheme not in _DEFAULT_PORTS or not url.hostname or url.path not in ("", "/"):
            raise ValueError("must be smtp://user:password@host:587 or smtps://user:password@host:465.")
        if options and (options != {"starttls": "no"} or url.scheme != "smtp"):
            raise ValueError("its only option is ?starttls=no, for smtp://.")
        try:
            port = url.port or _DEFAULT_PORTS[url.scheme]
        except ValueError:
            raise ValueError("its port is not a number up to 65535.") from None
        tls = "implicit" if url.scheme == "smtps" else "none" if options else "starttls"
        return SmtpServer(url.hostname, port, tls, unquote(url.username or ""), unquote(url.password or ""))

    def check_email(self, *, is_production: bool) -> Iterator[str]:
        """One sentence per value or combination that cannot work."""
        try:
            server = self.smtp_server
        except ValueError as problem:
            yield f"EMAIL_URL: {problem}"
            return
        if server and server.tls == "none" and server.username and is_production:
            yield "EMAIL_URL: a password without TLS can be read on the way. Remove ?starttls=no."
        if self.email_from and not _is_address(parseaddr(self.email_from)[1]):
            yield f"EMAIL_FROM: {self.email_from!r} is not an e-mail address."
        if server and not self.email_from:
            yield "EMAIL_FROM: name the address that mails come from."
        if server and is_production and not self.public_url:
            yield "PUBLIC_URL: mails need it for their links, like https://broadcast.example.com."
