"""The program of `mail_server.MailServerProcess`: aiosmtpd, with TLS and a login if wanted; mails become files.

    smtp_process.py FOLDER PORT none|starttls|implicit CERTIFICATE KEY USERNAME PASSWORD

A file named ADDRESS.answer holds the answer to the next mail to it. Without a password nobody has to sign in.
"""

import signal
import ssl
import sys
from pathlib import Path

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Handler:
    """Keeps each mail as NUMBER.eml, with the port of the client in a header, so that a test sees connections."""

    def __init__(self, folder: Path):
        self._folder, self._count = folder, len(list(folder.glob("*.eml")))

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802 - aiosmtpd's name
        answer = self._folder / f"{address}.answer"
        if answer.exists():
            reply = answer.read_text()
            answer.unlink()
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802 - aiosmtpd's name
        self._count += 1
        temporary = self._folder / "new"
        temporary.write_bytes(f"X-Client-Port: {session.peer[1]}\r\n".encode() + envelope.content)
        temporary.rename(self._folder / f"{self._count:04}.eml")
        return "250 OK"


def main(folder: str, port: str, tls: str, certificate: str, key: str, username: str, password: str) -> None:
    context = None
    if tls != "none":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)

    def authenticate(server, session, envelope, mechanism, data) -> AuthResult:
        is_known = (data.login, data.password) == (username.encode(), password.encode())
        return AuthResult(success=is_known, handled=False)  # aiosmtpd sends the answer

    login = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": tls == "starttls"}
    controller = Controller(
        Handler(Path(folder)),
        hostname="127.0.0.1",
        port=int(port),
        ssl_context=context if tls == "implicit" else None,
        tls_context=context if tls == "starttls" else None,
        require_starttls=tls == "starttls",
        **login if password else {},
    )
    controller.start()
    signal.sigwait({signal.SIGTERM})
    controller.stop()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before its thread starts, which inherits it
    main(*sys.argv[1:])
