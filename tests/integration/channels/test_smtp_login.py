"""TLS and the login, with an SMTP server as a process of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broadcast.channels.protocol import Accepted, Outcome, Retry
from broadcast.channels.smtp import SmtpTransport
from broadcast.config.email_settings import EmailSettings
from tests.support.mail_server import MailServerProcess

MAIL = b"Subject: Lifts\r\n\r\nThey stand.\r\n"
PASSWORD = "s3cret/@:%"


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., MailServerProcess]]:
    with ExitStack() as stack:

        def start(tls: str, password: str = PASSWORD) -> MailServerProcess:
            server = MailServerProcess(tmp_path, tls, password)
            stack.callback(server.stop)
            server.start()
            return server

        yield start


def connect(url: str) -> SmtpTransport:
    return SmtpTransport(EmailSettings(email_url=url, email_from="broadcast@example.com").smtp_server)


def send(url: str) -> Outcome:
    return connect(url).send(MAIL, "broadcast@example.com", "bob@example.com", "1")


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_mail_goes_over_tls_with_the_right_password(start_server, monkeypatch, tls):
    server = start_server(tls)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    assert send(server.url) == Accepted()
    [mail] = server.read_mails()
    assert mail["Subject"] == "Lifts"


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_wrong_password_says_so_and_keeps_the_mail(start_server, monkeypatch, tls):
    server = start_server(tls)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    outcome = send(server.url.replace("s3cret", "guess"))
    assert isinstance(outcome, Retry)
    assert outcome.is_server_down
    assert outcome.reason.startswith("The mail server refused the password: 535")
    assert server.read_mails() == []


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_certificate_that_nobody_vouches_for_gets_no_mail(start_server, tls):
    server = start_server(tls)
    outcome = send(server.url)
    assert isinstance(outcome, Retry)
    assert outcome.is_server_down
    assert "certificate" in outcome.reason
    assert server.read_mails() == []


def test_password_is_not_sent_to_a_server_without_starttls(start_server):
    server = start_server("none")
    outcome = send(server.url.removesuffix("?starttls=no"))
    assert isinstance(outcome, Retry)
    assert outcome.is_server_down
    assert "cannot do what EMAIL_URL asks for: STARTTLS" in outcome.reason
    assert server.read_mails() == []


def test_server_that_wants_a_login_says_so_to_who_has_none(start_server):
    server = start_server("none")
    outcome = send(f"smtp://{server.url.rpartition('@')[2]}")
    assert isinstance(outcome, Retry)
    assert outcome.is_server_down
    assert "530" in outcome.reason


def test_connection_is_used_again_and_replaced_when_the_server_has_closed_it(start_server):
    server = start_server("none", "")
    transport = connect(server.url)
    for number in ("1", "2"):
        assert transport.send(MAIL, "broadcast@example.com", "bob@example.com", number) == Accepted()
    server.stop()
    server.start()
    outcomes = [transport.send(MAIL, "broadcast@example.com", "bob@example.com", "3") for _ in range(2)]
    assert outcomes[-1] == Accepted()
    first, second, *_, last = (mail["X-Client-Port"] for mail in server.read_mails())
    assert first == second != last
