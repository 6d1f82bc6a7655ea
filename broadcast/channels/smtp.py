"""Hands mails to an SMTP server, over a few connections that are kept open while there is something to send."""

import smtplib
import ssl
import time
from contextlib import suppress
from functools import cached_property

from broadcast.channels.protocol import Accepted, Gone, Outcome, Refused, Retry
from broadcast.config.email_settings import SmtpServer
from broadcast.domain.visible_text import to_single_line

_CONNECT_TIMEOUT_SECONDS = 10.0
_REPLY_TIMEOUT_SECONDS = 30.0
_MAX_IDLE_SECONDS = 10.0  # servers close idle connections after some minutes
_CHECK_AFTER_SECONDS = 0.5  # idle for longer: the server may have closed it
_MAX_REPLY_CHARACTERS = 200


class SmtpTransport:
    """`send` blocks its greenlet; it may be called by several at a time."""

    def __init__(self, server: SmtpServer):
        self._server = server
        self._idle: list[tuple[smtplib.SMTP, float]] = []

    def send(self, mail: bytes, sender: str, recipient: str, message_id: str) -> Outcome:
        connection = None
        try:
            connection = self._take_idle() or self._connect()
            connection.sendmail(sender, [recipient], mail)
        except (OSError, UnicodeError) as problem:  # smtplib's errors are OSErrors
            return _to_outcome(problem)
        else:
            self._idle.append((connection, time.monotonic()))
            connection = None
            return Accepted()
        finally:
            if connection is not None:  # also when the time was up
                connection.close()

    def _take_idle(self) -> smtplib.SMTP | None:
        while self._idle:
            connection, used_at = self._idle.pop()
            idle_seconds = time.monotonic() - used_at
            if idle_seconds < _CHECK_AFTER_SECONDS or (idle_seconds < _MAX_IDLE_SECONDS and _is_open(connection)):
                return connection
            connection.close()
        return None

    def _connect(self) -> smtplib.SMTP:
        host, port, tls, username, password = self._server
        if tls == "implicit":
            connection = smtplib.SMTP_SSL(host, port, timeout=_CONNECT_TIMEOUT_SECONDS, context=self._tls_context)
        else:
            connection = smtplib.SMTP(host, port, timeout=_CONNECT_TIMEOUT_SECONDS)
        try:
            if tls == "starttls":
                connection.starttls(context=self._tls_context)
            if username:
                connection.login(username, password)
            connection.sock.settimeout(_REPLY_TIMEOUT_SECONDS)
        except BaseException:
            connection.close()
            raise
        return connection

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        return ssl.create_default_context()


def _is_open(connection: smtplib.SMTP) -> bool:
    with suppress(OSError):
        return connection.noop()[0] == 250
    return False


def _to_outcome(problem: OSError | UnicodeError) -> Outcome:
    match problem:
        case smtplib.SMTPRecipientsRefused():
            [(code, reply)] = problem.recipients.values()
            refusal = f"The mail server refused the address: {_quote(code, reply)}"
            if code < 500:
                return Retry(refusal)
            return (
                Refused(refusal) if " 5.7." in refusal else Gone(refusal)
            )  # 5.7: who sends, not the address (RFC 3463)
        case smtplib.SMTPDataError():
            refusal = f"The mail server refused the message: {_quote(problem.smtp_code, problem.smtp_error)}"
            return Refused(refusal) if problem.smtp_code >= 500 else Retry(refusal)
        case smtplib.SMTPAuthenticationError():
            sentence = f"The mail server refused the password: {_quote(problem.smtp_code, problem.smtp_error)}"
        case smtplib.SMTPResponseException():
            sentence = f"The mail server answered {_quote(problem.smtp_code, problem.smtp_error)}"
        case smtplib.SMTPNotSupportedError():
            sentence = f"The mail server cannot do what EMAIL_URL asks for: {problem}"
        case smtplib.SMTPServerDisconnected() if "timed out" not in str(problem):
            sentence = "The mail server closed the connection."
        case smtplib.SMTPServerDisconnected() | TimeoutError():
            sentence = "The mail server did not answer in time."
        case UnicodeError():
            return Refused("The address has characters that the mail server does not take.")
        case _:
            sentence = f"The mail server cannot be reached: {problem.strerror or problem}."
    return Retry(sentence, is_server_down=True)


def _quote(code: int, reply: bytes | str) -> str:
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    return f"{code} {to_single_line(text)}"[:_MAX_REPLY_CHARACTERS]
