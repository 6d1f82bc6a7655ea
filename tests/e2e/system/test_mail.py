"""E-mail from real workers: who dies at the worst moment, and a server that takes a byte a second."""

import socket
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
from broadcast.factory import create_app
from broadcast.store import email_addresses
from broadcast.store.database import db
from broadcast.store.models import Delivery, User
from broadcast.store.transactions import write_transaction
from tests.support.builders import build_message
from tests.support.escalation import by_channel, set_policy
from tests.support.mail_server import MailServer
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
