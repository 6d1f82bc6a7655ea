"""E-mail from real workers: who dies at the worst moment, and a server that takes a byte a second."""

import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy

from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.email_address import normalize_address
from broadcast.factory import create_app
from broadcast.store import deliveries, email_addresses
from broadcast.store.database import db
from broadcast.store.models import Delivery, User
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message
from tests.support.escalation import by_channel, set_policy
from tests.support.mail_server import MailServer, MailServerProcess
from tests.support.system import PROJECT_ROOT, System, run_system, wait_for

pytestmark = pytest.mark.service
FAILPOINTS = PROJECT_ROOT / "tests/support/failpoints"


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


def in_application(system: System, work):
    """Run `work` on the database of the system; in a thread, as a command does."""

    def run():
        app = create_app(Settings.load(system.build_command_environ()))
        with app.app_context():
            result = work()
            db.session.remove()
            db.engine.dispose()
            return result

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def prepare() -> None:
    """Urgent messages are mailed at once, and everybody has an address."""
    set_policy("URGENT", by_channel(0))
    with write_transaction() as session:
        for user in session.scalars(sqlalchemy.select(User)).all():
            address = f"{user.username}@example.com"
            email_addresses.set_verified(session, user.id, address, at=clock.now(), is_from_provider=False)


def end_leases() -> None:
    with write_transaction() as session:
        waiting = sqlalchemy.update(Delivery).where(Delivery.state == "WAITING")
        session.execute(waiting.values(due_at=clock.now()).execution_options(synchronize_session=False))


def read_states() -> list[str]:
    return sorted(db.session.scalars(sqlalchemy.select(Delivery.state)))


def publish(system: System) -> None:
    token = system.get_token("alice", "admin")
    status, _ = system.call("POST", "/api/admin/broadcasts", token=token, body=build_message(priority="URGENT"))
    assert status == 201


def test_worker_killed_after_the_server_took_a_mail_sends_it_again_under_its_id(tmp_path: Path, mail_server):
    armed = tmp_path / "armed"
    armed.mkdir()
    crash = {"FAILPOINTS": str(armed), "PYTHONPATH": str(FAILPOINTS), "WEB_CONCURRENCY": "1"}
    email = {"EMAIL_URL": mail_server.url, "EMAIL_FROM": "broadcast@example.com"}
    with run_system(tmp_path, **crash, **email) as system:
        in_application(system, prepare)
        (armed / "mail").touch()
        publish(system)
        wait_for(lambda: not (armed / "mail").exists(), description="the worker to die")
        in_application(system, end_leases)
        wait_for(lambda: set(in_application(system, read_states)) == {"SENT"}, description="every mail to be sent")
    by_id = {mail["Message-ID"]: mail["To"] for mail in mail_server.mails}
    everybody = {f"{name}@example.com" for name in ("alice", "bob", "charlie")}
    assert set(mail_server.recipients) == everybody
    assert len(by_id) == 3
    assert len(mail_server.mails) > 3


def test_slow_server_holds_up_nothing_else(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_slowly, args=(listener,), daemon=True).start()
        url = f"smtp://127.0.0.1:{listener.getsockname()[1]}?starttls=no"
        email = {"EMAIL_URL": url, "EMAIL_FROM": "broadcast@example.com", "WEB_CONCURRENCY": "1"}
        with run_system(tmp_path, **email) as system:
            in_application(system, prepare)
            publish(system)
            wait_for(lambda: "WAITING" in in_application(system, read_states), description="the plan")
            for _ in range(20):
                started_at = time.monotonic()
                assert system.call("GET", "/api/user/messages", token=system.get_token("bob"))[0] == 200
                assert time.monotonic() - started_at < 5
                time.sleep(0.1)
            assert set(in_application(system, read_states)) == {"WAITING"}


def serve_slowly(listener: socket.socket) -> None:
    """Greet every client with one byte a second."""
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_greet_slowly, args=(client,), daemon=True).start()


def _greet_slowly(client: socket.socket) -> None:
    with suppress(OSError):
        for byte in b"220-" + b"x" * 1000:
            client.send(bytes([byte]))
            time.sleep(1)


def make_odd_users() -> None:
    """Bob's name would begin another header, and Charlie's domain has letters outside ASCII."""
    with write_transaction() as session:
        for user in session.scalars(sqlalchemy.select(User)).all():
            if user.username == "bob":
                user.name = "Bob\r\nBcc: eve@example.com"
            elif user.username == "charlie":
                address = normalize_address("charlie@bücher.example")
                email_addresses.set_verified(session, user.id, address, at=clock.now(), is_from_provider=False)


def read_problem() -> str | None:
    return deliveries.get_settings("email").problem


def read_reasons() -> dict[str, str | None]:
    rows = db.session.execute(sqlalchemy.select(Delivery.state, Delivery.reason))
    return dict(map(tuple, rows))


def test_each_mail_arrives_once_though_the_server_is_down_defers_and_refuses(tmp_path: Path):
    server = MailServerProcess(tmp_path / "smtp", "starttls", "s3cret/@:%")
    email = {"EMAIL_URL": server.url, "EMAIL_FROM": "broadcast@example.com", "SSL_CERT_FILE": str(server.certificate)}
    title, word = "\u05e9\u05dc\u05d5\u05dd \u05dc\u05db\u05d5\u05dc\u05dd", "\u00f6" * 8192
    try:
        with run_system(tmp_path, **email) as system:
            in_application(system, prepare)
            in_application(system, make_odd_users)
            body = build_message(priority="URGENT", title=title, content=word)
            token = system.get_token("alice", "admin")
            assert system.call("POST", "/api/admin/broadcasts", token=token, body=body)[0] == 201
            wait_for(lambda: in_application(system, read_problem), description="the outage to be noticed")
            server.start()
            server.answer_once("alice@example.com", "450 Later")
            server.answer_once("bob@example.com", "550 No such user")
            in_application(system, end_leases)
            wait_for(lambda: "FAILED" in in_application(system, read_states), description="the refusal")
            wait_for(lambda: "SENT" in in_application(system, read_states), description="the first mail")
            assert in_application(system, read_problem) is None
            assert in_application(system, read_reasons)["WAITING"].endswith("450 Later")
            in_application(system, end_leases)
            wait_for(lambda: "WAITING" not in in_application(system, read_states), description="the deferred mail")
            assert in_application(system, read_states) == ["FAILED", "SENT", "SENT"]
            assert in_application(system, read_reasons)["FAILED"].endswith("550 No such user")
    finally:
        server.stop()
    mails = server.read_mails()
    assert {mail["To"].addresses[0].addr_spec for mail in mails} == {
        "alice@example.com",
        "charlie@xn--bcher-kva.example",
    }
    assert len(mails) == 2
    for mail in mails:
        assert (mail["Subject"], mail["Bcc"]) == (title, None)
        assert word in mail.get_body(("plain",)).get_content()


def test_server_that_answers_a_byte_a_second_in_the_middle_of_a_mail_is_given_up_and_tried_again():
    """Each byte restarts the wait for a reply, so that only the limit of the whole attempt ends it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_slowly, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        program = textwrap.dedent(f"""
            from gevent import monkey
            monkey.patch_all()
            from types import SimpleNamespace
            from broadcast.channels import outbox
            from broadcast.channels.protocol import Message
            from broadcast.channels.smtp import SmtpTransport
            from broadcast.config.email_settings import SmtpServer
            outbox.TIMEOUT_SECONDS = 2.5
            transport = SmtpTransport(SmtpServer("127.0.0.1", {port}, "none", "", ""))
            send = lambda message: transport.send(b"x", "a@example.com", message.address, message.id)
            channel = SimpleNamespace(name="email", send=send)
            print(outbox.Outbox(channel)._send(Message("1", None, 1, "Bob", "bob@example.com")))
        """)
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PROJECT_ROOT)
    assert "Retry" in result.stdout, result.stderr
    assert "did not finish within" in result.stdout
