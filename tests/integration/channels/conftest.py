"""An application with a mail server, whose users have addresses, and a receiver of webhooks."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
from flask import Flask

from broadcast.actions import webhooks as webhook_actions
from broadcast.channels import escalation
from broadcast.channels.email import EMAIL
from broadcast.channels.outbox import Outbox
from broadcast.channels.webhooks import WebhookSender
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.webhook_events import WebhookType
from broadcast.store import email_addresses
from broadcast.store.database import db
from broadcast.store.transactions import write_transaction
from tests.support.builders import load_actor
from tests.support.mail_server import MailServer
from tests.support.webhook_receiver import WebhookReceiver


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def settings(settings: Settings, mail_server: MailServer) -> Settings:
    changes = {"email_url": mail_server.url, "email_from": "Broadcast <broadcast@example.com>"}
    return settings.model_copy(update=changes | {"public_url": "https://broadcast.example"})


@pytest.fixture
def people(in_app: Flask, cast: dict[str, Actor]) -> dict[str, Actor]:
    """The test users, each with a verified address."""
    set_addresses(cast)
    return cast


def set_addresses(actors: dict[str, Actor]) -> None:
    with write_transaction() as session:
        for name, actor in actors.items():
            address = f"{name}@example.com"
            email_addresses.set_verified(session, actor.user_id, address, at=clock.now(), is_from_provider=False)


@pytest.fixture
def escalate(in_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Plan and send as a worker does, so many seconds from now."""
    outbox, start = Outbox(EMAIL.of(in_app)), clock.now()

    def run(seconds: float) -> None:
        later: datetime = start + timedelta(seconds=seconds)
        monkeypatch.setattr(clock, "now", lambda: later)
        escalation.run_once(now=later)
        outbox.run_once()

    return run


@pytest.fixture(scope="module")
def receiver_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver(tmp_path_factory.mktemp("receiver") / "files")
    yield receiver
    receiver.stop()


@pytest.fixture
def receiver(receiver_process: WebhookReceiver) -> WebhookReceiver:
    receiver_process.forget()
    return receiver_process


@pytest.fixture
def send(in_app, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Plan and send as a worker does, so many seconds from now."""
    sender, start = WebhookSender(in_app), clock.now()

    def run(seconds: float = 0) -> None:
        later: datetime = start + timedelta(seconds=seconds)
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda: later)
            sender.run_once()
            sender.wait()
        db.session.rollback()  # read what the greenlets have written

    return run


@pytest.fixture
def add(cast, receiver: WebhookReceiver) -> Callable[..., int]:
    """Add an endpoint at the receiver, which then trusts its secret."""

    def create(*types: str, path: str = "") -> int:
        url, by = receiver.url + path, load_actor("alice")
        endpoint_id, secret = webhook_actions.create_endpoint(url, types or WebhookType, by=by, now=clock.now())
        receiver.trust(secret)
        return endpoint_id

    return create
