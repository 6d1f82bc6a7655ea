"""Fixtures: a push service, and an application that may send to it."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest
from flask import Flask

from broadcast.actions import push_subscriptions
from broadcast.channels import corrections, escalation, outgoing_http
from broadcast.channels.corrections import CorrectionOutbox
from broadcast.channels.outbox import Outbox
from broadcast.channels.push import PUSH, PushChannel
from broadcast.channels.registry import CHANNELS
from broadcast.config.settings import Settings
from broadcast.domain import clock
from broadcast.domain.actor import Actor
from broadcast.domain.push_subscription import PushEndpoint
from broadcast.store.models import UserSession
from broadcast.store.transactions import write_transaction
from tests.support.push_service import HOST, PushService


@pytest.fixture(scope="module")
def push_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PushService]:
    with PushService(tmp_path_factory.mktemp("push")) as service:
        yield service


@pytest.fixture
def settings(settings: Settings, push_service: PushService) -> Settings:
    return settings.model_copy(update={"push_services": [f"{HOST}:{push_service.port}"]})


@pytest.fixture
def push_channel(
    in_app: Flask, settings: Settings, push_service: PushService, monkeypatch: pytest.MonkeyPatch
) -> PushChannel:
    """The application's channel. HOST is found on this machine, which only this channel may send to."""
    look_up = outgoing_http.socket.getaddrinfo

    def resolve(host: str, *arguments, **options):
        return look_up("127.0.0.1" if host == HOST else host, *arguments, **options)

    monkeypatch.setattr(outgoing_http.socket, "getaddrinfo", resolve)
    trusting = outgoing_http.ssl.create_default_context(cafile=push_service.authority_path)
    monkeypatch.setattr(outgoing_http, "_make_tls_context", lambda: trusting)
    channel = PushChannel(settings, post=partial(outgoing_http.post, may_be_private=True))
    CHANNELS.attach(in_app, {"push": channel})
    return PUSH.attach(in_app, channel)


def open_session(actor: Actor) -> int:
    with write_transaction() as session:
        now = clock.now()
        row = UserSession(token_hash=f"{now} {actor.user_id}"[:64], user_id=actor.user_id, created_at=now, seen_at=now)
        session.add(row)
        session.flush()
        return row.id


def to_json(endpoint: PushEndpoint) -> dict:
    """As `PushSubscription.toJSON()` in a browser."""
    keys = {"p256dh": endpoint.p256dh, "auth": endpoint.auth}
    return {"endpoint": endpoint.url, "expirationTime": None, "keys": keys}


Subscribe = Callable[[Actor], PushEndpoint]


@pytest.fixture
def subscribe(push_channel: PushChannel, push_service: PushService) -> Subscribe:
    """A user turns push messages on in a new browser, where they have signed in."""

    def run(actor: Actor, agent: str = "Chrome/140") -> PushEndpoint:
        endpoint = push_service.subscribe(push_channel.key.public_key)
        values = {"session_id": open_session(actor), "agent": agent, "now": clock.now()}
        push_subscriptions.register(to_json(endpoint), by=actor, **values)
        return endpoint

    return run


@pytest.fixture
def push_out(push_channel: PushChannel, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Plan and send as a worker does, so many seconds from now; corrections, too."""
    outboxes, start = (Outbox(push_channel), CorrectionOutbox(push_channel)), clock.now()

    def run(seconds: float) -> None:
        later = start + timedelta(seconds=seconds)
        monkeypatch.setattr(clock, "now", lambda: later)
        escalation.run_once(now=later)
        corrections.plan_all(now=later)
        for outbox in outboxes:
            outbox.run_once()

    return run
